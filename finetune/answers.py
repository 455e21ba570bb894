"""How well a model answers held-out prompts: the loss of the answers' tokens, and answers that it writes.

May import `training` and `data`. Stands where `training.evaluate.Evaluator` stands in a run that learns texts.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F

from finetune.batches import IGNORED, example_rows, padded
from finetune.encoding import Prepared
from finetune.rendering import prompt_of
from training.evaluate import Scores
from training.probe import evaluating

SHOWN_PROMPT = 2_000  # characters of a prompt that stand beside its sampled answer
LONGEST_ANSWER = 256  # tokens of one


class AnswerEvaluator:
    """Scores a model on the same examples each time, so that the points of a curve can be compared.

    Args:
        batch_size: examples in one forward pass.
    """

    floor, corpus = None, None  # what a text may know of itself, and examples do not

    def __init__(self, prepared: Prepared, context: int, batch_size: int, device: torch.device):
        self.prepared, self.context, self.batch_size, self.device = prepared, context, batch_size, device
        self.prompts = prepared.examples.split("validation")

    def sequences(self, split: str, limit: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids, scored) of the whole split, or of `limit` examples spread evenly over it."""
        encoded = self.prepared.splits[split]
        count = len(encoded) if limit is None else min(limit, len(encoded))
        return [encoded.example(int(i)) for i in np.linspace(0, len(encoded) - 1, count)]

    def loss(self, model, split: str, limit: int | None = None) -> float:
        return score_answers(model, self.sequences(split, limit), self.batch_size, self.device).loss

    def excess(self, model, split: str = "validation", limit: int | None = None) -> None:
        """Nobody knows how likely these answers were."""

    def bits_per_byte(self, loss: float, split: str = "validation") -> None:
        """Not of answers alone: their bytes are not counted."""

    def sample(self, model, tokenizer, seed: int) -> dict:
        """The model's most likely answer to a prompt that is held out, another one for each seed."""
        return self.answer(model, tokenizer, self.prompts[seed % len(self.prompts)])

    @torch.no_grad()
    def answer(self, model, tokenizer, example: dict) -> dict:
        """`text` that the model writes greedily to its end, the `prompt`, and the `reference` that stands there."""
        ids, reference = prompt_of(example, tokenizer)
        room = max(1, min(LONGEST_ANSWER, self.context - len(ids)))
        inputs = torch.tensor([ids], device=self.device)
        with evaluating(model):
            out = model.generate(
                input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=room, do_sample=False,
                pad_token_id=tokenizer.pad_token_id or 0, temperature=None, top_p=None, top_k=None,
            )  # fmt: skip
        text = tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
        return {"text": text, "prompt": tokenizer.decode(ids)[-SHOWN_PROMPT:], "reference": reference, "temperature": 0}

    def report(self, model) -> dict:
        """Everything known about both splits at the end of a run."""
        validation = score_answers(model, self.sequences("validation"), self.batch_size, self.device)
        return {
            "train_loss": self.loss(model, "train", limit=len(validation.tokens)),
            "val_loss": validation.loss,
            "perplexity": math.exp(min(validation.loss, 700.0)),
            "val_tokens": int(validation.tokens.sum()),
        }


@torch.no_grad()
def score_answers(model, examples: Iterable[tuple[np.ndarray, np.ndarray]], batch_size: int, device) -> Scores:
    """Negative log-likelihood of each example's scored tokens, each given all that stands before it.

    Args:
        examples: (ids, scored) of each.
        batch_size: examples in one forward pass, sorted by length so that little is padding.
    """
    rows = [example_rows(ids, scored) for ids, scored in examples]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["labels"]))
    nats, tokens = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = padded([rows[i] for i in chosen])
            inputs, labels = (torch.from_numpy(batch[name]).to(device) for name in ("input_ids", "labels"))
            logits = model(input_ids=inputs, use_cache=False).logits.float()  # (B, T, V)
            losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
            nats[chosen] = losses.double().sum(1).cpu().numpy()
            tokens[chosen] = (labels != IGNORED).sum(1).cpu().numpy()
    return Scores(nats, tokens)
