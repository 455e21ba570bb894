"""The command of `python -m interpret.tuned_lens`: trains a tuned lens beside a run, and compares it on held-out text.

May import `training`, `hub` and `data`; of ours here `interpret.tuned_lens`, `lens_figure` and `figures`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.corpora import open_corpus
from data.tokenizer import checked
from data.tokens import Batches, Tokens, pack
from data.workspace import Workspace
from hub.models import open_model, resolve
from hub.registry import table
from interpret.figures import command_line, default_path, save, view_parser
from interpret.lens import row_names
from interpret.lens_figure import draw_held_out
from interpret.tuned_lens import (
    Settings,
    Tuned,
    folder_of,
    mean_kl,
    model_sha256,
    read_tuned,
    train,
)
from interpret.tuned_lens import save as save_lens
from training.evaluate import Evaluator
from training.evaluate_cli import own_corpus, run_of, usual_context
from training.setup import typical_start

CONTEXT = 128  # tokens of a row, where the model does not have fewer
HELD_OUT = 64  # sequences that the two lenses are compared on, spread over the validation split


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    place = resolve(given.run, workspace)
    run = run_of(place)
    corpus = open_corpus(given.corpus, workspace) if given.corpus else own_corpus(given.run, run, workspace)
    model, tokenizer = open_model(place, workspace)
    if torch.accelerator.is_available():
        model = model.to(torch.accelerator.current_accelerator())
    name = run.info()["inputs"].get("tokenizer", {}).get("name") if run else None
    folder = place if isinstance(place, Path) else None
    tokens = pack(corpus, checked(tokenizer, name or str(given.run).strip("./"), folder), workspace)
    settings = settings_for(given, model, tokens)
    described = {"name": corpus.name, "sha256": corpus.sha256}
    beside, weights = folder_of(place, workspace), model_sha256(model)
    found = there(beside, model, given.run, described, settings)
    if found is None:
        held_out = Evaluator(corpus, tokens, settings.context, settings.start, 1, model.device)
        translators = learn(model, tokens, settings)
        measured = compare(model, held_out, translators)
        found = save_lens(beside, translators, weights, described, settings, measured)
    rows, (logit, tuned) = row_names(len(found.translators.matrices))[:-1], both(found)
    saved = save(
        draw_held_out(rows, logit, tuned), {"rows": np.array(rows), "logit": np.array(logit), "tuned": np.array(tuned)},
        command_line("interpret.tuned_lens", arguments),
        given.out or default_path(workspace, "tuned_lens", given.run),
    )  # fmt: skip
    if given.json:
        print(json.dumps({**found.record, "lens": str(beside), **saved.record}, indent=2))
        return 0
    print(show(rows, found))
    print(f"\nlens     {beside}\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "tuned_lens",
        "Train a tuned lens on a corpus: one affine translator a layer, from what the layer says to what the model "
        "will say. It is kept beside the run, found again, and compared with the logit lens on held-out text.",
        "  python -m interpret.tuned_lens latest\n"
        "  python -m interpret.tuned_lens latest@best --corpus shakespeare --steps 500\n"
        "  python -m interpret.tuned_lens Qwen/Qwen3-0.6B --corpus letters.txt --batch-size 2 --json",
        prompt=False,
    )
    add, usual = parser.add_argument, Settings()
    add("--corpus", metavar="NAME|PATH", help="what it learns from (default: the corpus the run was trained on)")
    add("--steps", metavar="N", type=int, default=usual.steps, help=f"optimizer steps (default: {usual.steps})")
    add(
        "--batch-size", metavar="N", type=int, default=usual.batch_size,
        help=f"rows of text in a step (default: {usual.batch_size})",
    )  # fmt: skip
    add("--context", metavar="N", type=int, help=f"tokens of a row (default: {CONTEXT}, or what the model has)")
    add(
        "--learning-rate", metavar="X", type=float, default=usual.learning_rate,
        help=f"of the stream's size, how far a step may move it (default: {usual.learning_rate:g})",
    )  # fmt: skip
    add("--seed", metavar="N", type=int, default=usual.seed, help=f"of the text's order (default: {usual.seed})")
    return parser.parse_args(arguments)


def settings_for(given, model: nn.Module, tokens: Tokens) -> Settings:
    """What was asked for, the rest as fits the model and the text."""
    context = given.context or min(CONTEXT, usual_context(model.config, None))
    return Settings(
        steps=given.steps,
        batch_size=given.batch_size,
        context=context,
        start=typical_start(tokens, context),
        learning_rate=given.learning_rate,
        seed=given.seed,
    )


def there(folder: Path, model: nn.Module, ref: str, corpus: dict, settings: Settings) -> Tuned | None:
    """The lens that was trained before with exactly this model, corpus and settings; None where there is none."""
    try:
        found = read_tuned(folder, model, ref)
    except ValueError:  # none, or another one's, which the new one replaces
        return None
    same = found.record["corpus"] == corpus and Settings(**found.record["settings"]) == settings
    return found if same else None


def learn(model: nn.Module, tokens: Tokens, settings: Settings):
    """Train on the training split, with a bar that says how long it will take."""
    batches = Batches(
        tokens.split("train"), tokens.starts("train"), settings.context, settings.batch_size, settings.seed,
        settings.start,
    )  # fmt: skip
    with tqdm(total=settings.steps, unit="step", desc="tuned lens", leave=False, disable=None) as progress:

        def told(loss: float) -> None:
            progress.set_postfix(kl=f"{loss:.3f}", refresh=False)
            progress.update()

        return train(model, batch_of(batches), settings, told)


def batch_of(batches: Batches) -> Callable[[int], Tensor]:
    """Token ids (B, T) of a step; the target behind the last one is not needed."""
    return lambda step: torch.from_numpy(batches.at(step)[:, :-1])


def compare(model: nn.Module, evaluator: Evaluator, translators) -> dict:
    """Both lenses' KL by layer on validation text."""
    sequences = [torch.from_numpy(ids[:-1]) for ids in evaluator.sequences("validation", HELD_OUT) if len(ids) > 1]
    tokens = sum(map(len, sequences))
    with tqdm(sequences, unit="seq", desc="held-out text", leave=False, disable=None) as watched:
        return {"tokens": tokens, **mean_kl(model, watched, translators)}


def both(found: Tuned) -> tuple[list[float], list[float]]:
    return found.record["held_out"]["logit"], found.record["held_out"]["tuned"]


def show(rows: list[str], found: Tuned) -> str:
    """KL by layer of both lenses."""
    lines = [["", "logit lens", "tuned lens"]]
    lines += [[row, f"{one:.3f}", f"{other:.3f}"] for row, one, other in zip(rows, *both(found), strict=True)]
    tokens = found.record["held_out"]["tokens"]
    return f"KL from the model, nats per token, on {tokens:,} tokens of held-out text:\n{table(lines)}"
