"""Activation patching: which activations of a clean run, put into a corrupted one, bring the clean answer back.

Of ours here `interpret.ablation`, `prompt`, `record` and `structure`. Two prompts of equally many tokens that call for
different answers, such as names exchanged (arXiv:2211.00593); read by the difference of two logits and told as a share
of what there is to bring back (arXiv:2404.15255 says what such a number does and does not show).

Shapes: B batch, T tokens, C hidden size, L layers, H heads, D head dim.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.console import cli, nearest
from interpret.ablation import rows_at_once
from interpret.prompt import Prompt, read_prompt
from interpret.record import record
from interpret.sites import Tap
from interpret.structure import structure
from interpret.writing import prompt_ids, spell

PLACES = {  # site: what one patch takes from the clean run
    "resid_pre": "the residual stream that enters a layer, at one token",
    "attn_out": "what a layer's attention adds, at one token",
    "mlp_out": "what a layer's feed-forward adds, at one token",
    "resid_post": "the residual stream that leaves a layer, at one token",
    "z": "what one head gathered, at all tokens",
}
DEFAULT = ("resid_pre", "attn_out", "mlp_out", "z")  # resid_post is the next layer's resid_pre
SAME = 1e-3  # logit differences as close as this are not told apart: between runs in bfloat16 less is rounding


class LengthsDifferError(ValueError):
    """Two prompts that cannot be patched into each other; `prompts` are both, as they were read."""

    def __init__(self, clean: Prompt, corrupted: Prompt):
        self.prompts = clean, corrupted
        counts = "; ".join(
            f"the {name} prompt has {len(prompt.ids):,} tokens: {' | '.join(prompt.tokens)}"
            for name, prompt in zip(("clean", "corrupted"), self.prompts, strict=True)
        )
        super().__init__(
            f"both prompts must have equally many tokens, so that each has its place in the other; {counts}"
        )


@dataclass(frozen=True)
class Answer:
    """A next token."""

    id: int
    token: str


@dataclass(frozen=True)
class Patching:
    """What each patch makes of logit(answer) − logit(wrong) behind the corrupted prompt.

    Attributes:
        clean_difference, corrupted_difference: without any patch.
        differences: by site, (L, T) for one token of one layer each, (L, H) for `z`.
    """

    clean: Prompt
    corrupted: Prompt
    answer: Answer
    wrong: Answer
    clean_difference: float
    corrupted_difference: float
    differences: dict[str, np.ndarray]

    def restored(self, site: str) -> np.ndarray:
        """The same as shares: 0 is as corrupted, 1 is as clean; beyond both is possible."""
        return (self.differences[site] - self.corrupted_difference) / (
            self.clean_difference - self.corrupted_difference
        )


def patching(
    model: nn.Module,
    tokenizer,
    clean: str,
    corrupted: str,
    answer: str = "",
    wrong: str = "",
    sites: Collection[str] = DEFAULT,
) -> Patching:
    """Patch each place of `corrupted` with what stood there in `clean`, one at a time.

    Args:
        answer, wrong: next tokens, right behind the clean prompt and behind the corrupted one; by default those that
            the model finds likeliest there.
        sites: of PLACES.

    Raises ValueError for prompts of different lengths, answers that are no single tokens, and prompts between which
    the answers' logits do not differ.
    """
    for site in sites:
        if site not in PLACES:
            raise ValueError(f"{site!r} is no site that is patched; {nearest(site, PLACES)}")
    here, there = _read(model, tokenizer, clean, corrupted)
    right = next_token(model, tokenizer, clean, answer)
    other = next_token(model, tokenizer, corrupted, wrong)
    if right.id == other.id:
        raise ValueError(
            f"the answer and the wrong answer are the same token, {right.token!r}: name two between which the prompts "
            "decide"
        )
    pair = right.id, other.id
    clean_difference, corrupted_difference = (
        float(difference(record(model, prompt.ids, ["logits"], positions=[-1])["logits"], *pair)[0])
        for prompt in (here, there)
    )
    if abs(clean_difference - corrupted_difference) < SAME:
        raise ValueError(
            f"the logits of {right.token!r} and {other.token!r} differ by {clean_difference:.3f} behind both prompts: "
            "there is nothing that a patch could bring back"
        )
    differences = {site: patched(model, here.ids, there.ids, site, *pair) for site in dict.fromkeys(sites)}
    return Patching(here, there, right, other, clean_difference, corrupted_difference, differences)


def patched(model: nn.Module, clean: list[int], corrupted: list[int], site: str, answer: int, wrong: int) -> np.ndarray:
    """The logit difference behind `corrupted` with one place from `clean` in turn: (L, T), or (L, H) for `z`.

    Args:
        clean, corrupted: token ids, equally many.
        answer, wrong: token ids.
    """
    parts = structure(model)
    source = record(model, clean, [site])
    L, places = len(parts.layers), parts.heads if site == "z" else len(clean)
    found = np.empty((L, places))
    with tqdm(total=L * places, unit="patch", desc=f"patching {site}", leave=False, disable=None) as progress:
        for layer in range(L):
            name = f"blocks.{layer}.{site}"
            for some in torch.arange(places).split(rows_at_once(model, len(clean))):
                batch = torch.tensor(corrupted).expand(len(some), -1)
                edit = {name: _each_place(some, source[name], by_head=site == "z")}
                logits = record(model, batch, ["logits"], positions=[-1], edits=edit)["logits"]
                found[layer, some.numpy()] = difference(logits, answer, wrong)
                progress.update(len(some))
    return found


def difference(logits: Tensor, answer: int, wrong: int) -> np.ndarray:
    """logit(answer) − logit(wrong) of the last token, (B,), from (B, T, V)."""
    last = logits[:, -1].double()
    return (last[:, answer] - last[:, wrong]).numpy()


def next_token(model: nn.Module, tokenizer, prompt: str, answer: str = "") -> Answer:
    """The token that `answer` is behind `prompt`; the model's likeliest where nothing is given.

    A blank in front of a word is a part of its token for most tokenizers: where it was not typed, it is tried too.
    Raises ValueError for an answer that is several tokens.
    """
    ids = prompt_ids(model, tokenizer, prompt)
    if not answer:
        likeliest = int(record(model, ids, ["logits"], positions=[-1])["logits"][0, -1].argmax())
        return Answer(likeliest, spell(tokenizer, likeliest))
    for text in (answer, f" {answer}"):
        longer = prompt_ids(model, tokenizer, prompt + text)
        if longer[:-1] == ids:
            return Answer(longer[-1], spell(tokenizer, longer[-1]))
    pieces = [spell(tokenizer, i) for i in tokenizer(answer, add_special_tokens=False)["input_ids"]]
    raise ValueError(
        f"the answer {answer!r} is not one token behind the prompt (by itself it is {', '.join(map(repr, pieces))}): "
        "name a single token, with the blank in front of it that belongs to it"
    )


def _read(model: nn.Module, tokenizer, clean: str, corrupted: str) -> tuple[Prompt, Prompt]:
    """Both prompts, whole: the answer stands behind their ends."""
    read = [read_prompt(model, tokenizer, text) for text in (clean, corrupted)]
    for name, prompt in zip(("clean", "corrupted"), read, strict=True):
        if prompt.note:
            raise ValueError(
                f"the {name} prompt is too long, and the answer stands behind its end: shorten it to "
                f"{len(prompt.ids):,} tokens at most"
            )
    if len(read[0].ids) != len(read[1].ids):
        raise LengthsDifferError(*read)
    return read[0], read[1]


def _each_place(places: Tensor, source: Tensor, by_head: bool) -> Tap:
    """Row i of a batch (B, T, …) gets the i-th of `places` (B,) from `source` (1, T, …).

    Places are tokens, or heads at all tokens of (B, T, H, D).
    """

    def tap(tensor: Tensor) -> Tensor:
        changed, theirs = tensor.clone(), source.to(tensor)[0]
        rows, where = torch.arange(len(tensor), device=tensor.device), places.to(tensor.device)
        if by_head:
            changed[rows, :, where] = theirs[:, where].transpose(0, 1)  # (B, T, D)
        else:
            changed[rows, where] = theirs[where]
        return changed

    return tap


if __name__ == "__main__":
    from interpret.patching_cli import main  # it imports this module

    cli(main)
