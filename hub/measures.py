"""What a run measures of itself, by name: what each number means, its unit, and what is healthy.

May import nothing of ours. The names are the columns of metrics.csv and the keys of metrics.jsonl; whoever measures,
draws or judges takes them from here. `NAME/PART` in metrics.jsonl is the same measure of one layer or matrix, PART
being the module's name; a list there has one value for each attention head.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measured quantity.

    Attributes:
        title: for a chart's heading; `unit` for its axis.
        about: one sentence, its definition; `source` is where the definition comes from.
        healthy: one sentence, in words, what to expect; empty where nothing can be said.
        by: what it is also measured by: `layer`, `matrix` or nothing.
        log: whether a logarithmic axis shows it better.
        guide: a level worth a line in the chart.
    """

    name: str
    title: str
    unit: str
    about: str
    healthy: str = ""
    by: str = ""
    log: bool = False
    guide: float | None = None
    source: str = ""


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "update_ratio",
            "Update ratio",
            "std of the update / std of the weights",
            "How far one real optimizer step moves each weight matrix, relative to its spread; the median of all.",
            "About 1e-3 with AdamW: a tenth of it learns slowly, ten times as much is unsteady. Muon's is larger.",
            "matrix", True, 1e-3,
        ),
        Measure(
            "update_ratio_sgd",
            "Update ratio as of SGD",
            "learning rate · std of the gradient / std of the weights",
            "What plain SGD would have moved at this rate: the form tutorials print, with the scheduled rate.",
            "Says little beside AdamW or Muon, whose steps do not grow with the gradient.",
            "", True,
        ),
        Measure(
            "grad_norm",
            "Gradient norm",
            "L2 norm before clipping",
            "The length of the whole gradient of a step, before it is clipped.",
            "Falls quickly at first, then stays level; a steady rise precedes divergence.",
            "", True,
        ),
        Measure(
            "clipped",
            "Steps clipped",
            "share of the last 50 steps",
            "How often the gradient was longer than train.max_grad_norm and was scaled down.",
            "Often at the start, seldom later; near 1 all along means that the limit sets the learning rate.",
        ),
        Measure(
            "grad_variance",
            "Gradient variance",
            "mean over matrices of the variance of a gradient's elements",
            "How widely the elements of each parameter's gradient are spread; not a variance over samples.",
            "Follows the gradient norm; a sudden change in one and not the other points at a single matrix.",
            "matrix", True,
        ),
        Measure(
            "noise_scale",
            "Gradient noise scale",
            "tokens",
            "tr(Σ)/|G|², the batch at which noise and signal of the gradient are equal, from micro-batches, smoothed.",
            "Grows as the loss falls. A batch far below it is noisy, one far above it wastes computation.",
            "", True, None, "arXiv:1812.06162, appendix A",
        ),
        Measure(
            "dead_perc",
            "Dead units",
            "% of the feed-forward units",
            "Units silent on every token of a fixed probe batch: exactly 0 (ReLU), or below 1e-3 of the layer's RMS.",
            "Near 0 %. A layer above 10 % has lost capacity, which seldom comes back.",
            "layer",
        ),
        Measure(
            "inactive_frac",
            "Inactive fraction",
            "share of activations at or below 0",
            "How sparse the feed-forward activations are on the probe batch: sparsity, not death.",
            "Between 0.5 and 0.95 with ReLU or GELU.",
            "layer",
        ),
        Measure(
            "attention_entropy",
            "Attention entropy",
            "share of the possible",
            "How widely a head spreads its attention: mean entropy over queries, over log of visible keys.",
            "Heads differ; a layer below 0.05 has collapsed onto single tokens.",
            "layer", False, 0.05, "arXiv:2303.06296",
        ),
        Measure(
            "max_attention_logit",
            "Largest attention logit",
            "max |q·k|/√d",
            "The largest score before attention's softmax on the probe batch.",
            "Tens at most; growth into the hundreds precedes a divergence, which QK-norm prevents.",
            "layer", True, None, "arXiv:2302.05442",
        ),
        Measure("logit_max", "Largest logit", "max |logit|", "The largest score of a token on the probe batch.",
                "Levels off; a steady climb may be held by train.z_loss or final_logit_softcapping."),
        Measure(
            "logit_z",
            "Log partition z",
            "nats",
            "Mean logsumexp of the logits on the probe batch.",
            "Any level does, drifting far from where it began does not: train.z_loss holds it near 0.",
            "", False, None, "arXiv:2204.02311",
        ),
        Measure("weight_rms", "Weight RMS", "root mean square", "Typical size of a weight; the median over matrices.",
                "Changes slowly; growth all along is held by train.weight_decay.", "matrix", True),
        Measure(
            "residual_rms",
            "Residual stream RMS",
            "root mean square",
            "Typical size of the residual stream after each layer, on the probe batch; the last layer's.",
            "Grows from layer to layer by less than ten times in all.",
            "layer", True,
        ),
        Measure(
            "induction_score",
            "Induction",
            "mean attention",
            "On repeated random tokens, the attention paid to the token after the last occurrence; the best head's.",
            "Rises suddenly when the model begins to copy from its context; that of a uniform head is near 0.",
            "layer", False, None, "arXiv:2209.11895",
        ),
        Measure("previous_token_score", "Previous token", "mean attention",
                "On repeated random tokens, the attention paid to the token before; the best head's.",
                "Rises before induction does, which is built on it.", "layer", False, None, "arXiv:2209.11895"),
        Measure("duplicate_token_score", "Duplicate token", "mean attention",
                "On repeated random tokens, the attention to the same token earlier; the best head's.",
                "", "layer", False, None, "arXiv:2209.11895"),
        Measure(
            "in_context_score",
            "In-context learning",
            "nats per token",
            "Loss on the first copy of repeated random tokens minus the loss on the second.",
            "0 for a model that cannot copy from its context; rises together with induction.",
            "", False, 0.0, "arXiv:2209.11895",
        ),
        Measure("tokens_sec", "Speed", "tokens a second", "Between two readings, evaluation and saving left out.",
                "Level. A fall is another program, heat, or memory."),
        Measure("mfu", "Model FLOPs utilisation", "share of the matrix peak",
                "The model's operations a second over the matrix-multiply peak measured here, in its precision.",
                "0.3 to 0.6; lower for models of few parameters.", "", False, None, "arXiv:2204.02311, appendix B"),
        Measure("data_wait", "Waiting for data", "share of the step", "Time a step spends until its batch is there.",
                "Below 0.05."),
        Measure("bits_per_byte", "Bits per byte", "bits per UTF-8 byte of validation text",
                "The validation loss counted by bytes: what compares across tokenizers.", "Falls."),
        Measure("excess", "Excess over the floor", "nats per token",
                "Validation loss minus the corpus's own -log p, paired by whole document, where the corpus knows it.",
                "Falls towards 0; below 0 by more than three standard errors, validation text has leaked.",
                "", True, 0.0),
    )
}  # fmt: skip

SPIKE = "spike"  # at a step whose loss is above the median of the last 50 by 6 median absolute deviations: that limit
