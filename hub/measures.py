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
        heads: what stands for the heads of one layer: their `mean`, or the `max` of them.
        log: whether a logarithmic axis shows it better.
        guide: a level worth a line in the chart.
        window: it is recorded at every step and means something only as the mean of so many.
    """

    name: str
    title: str
    unit: str
    about: str
    healthy: str = ""
    by: str = ""
    heads: str = "mean"
    log: bool = False
    guide: float | None = None
    window: int = 1
    source: str = ""


CATALOGUE = (
    Measure(
        "update_ratio",
        title="Update ratio",
        unit="std of the update / std of the weights",
        about="How far one real optimizer step moves each weight matrix, relative to its spread; the median of all.",
        healthy="About 1e-3 with AdamW: a tenth of it learns slowly, ten times as much is unsteady. Muon's is larger.",
        by="matrix",
        log=True,
        guide=1e-3,
    ),
    Measure(
        "update_ratio_sgd",
        title="Update ratio as of SGD",
        unit="learning rate · std of the gradient / std of the weights",
        about="What plain SGD would have moved at this rate: the form tutorials print, with the scheduled rate.",
        healthy="Says little beside AdamW or Muon, whose steps do not grow with the gradient.",
        by="matrix",
        log=True,
    ),
    Measure(
        "grad_norm",
        title="Gradient norm",
        unit="L2 norm before clipping",
        about="The length of the whole gradient of a step, before it is clipped.",
        healthy="Falls quickly at first, then stays level; a steady rise precedes divergence.",
        log=True,
    ),
    Measure(
        "clipped",
        title="Steps clipped",
        unit="share of the last 50 steps",
        about="How often the gradient was longer than train.max_grad_norm and was scaled down.",
        healthy="Often at the start, seldom later; near 1 all along means that the limit sets the learning rate.",
        window=50,
    ),
    Measure(
        "grad_variance",
        title="Gradient variance",
        unit="mean over parameters of the variance of a gradient's elements",
        about="How widely the elements of each parameter's gradient are spread; not a variance over samples.",
        healthy="Follows the gradient norm; a sudden change in one and not the other points at a single matrix.",
        by="matrix",
        log=True,
    ),
    Measure(
        "noise_scale",
        title="Gradient noise scale",
        unit="tokens",
        about="tr(Σ)/|G|², the batch at which noise and signal of a gradient are equal; by micro-batches, smoothed.",
        healthy="Grows as the loss falls. A batch far below it is noisy, one far above it wastes computation.",
        log=True,
        source="arXiv:1812.06162, appendix A",
    ),
    Measure(
        "dead_perc",
        title="Dead units",
        unit="% of the feed-forward units",
        about="Units silent on every token of a fixed probe batch: exactly 0 (ReLU), or below 1e-3 of the layer's RMS.",
        healthy="Near 0 %. A layer above 10 % has lost capacity, which seldom comes back.",
        by="layer",
    ),
    Measure(
        "inactive_frac",
        title="Inactive fraction",
        unit="share of activations at or below 0",
        about="How sparse the feed-forward activations are on the probe batch: sparsity, not death.",
        healthy="Between 0.5 and 0.95 with ReLU or GELU.",
        by="layer",
    ),
    Measure(
        "attention_entropy",
        title="Attention entropy",
        unit="share of the possible",
        about="How widely a head spreads its attention: mean entropy over queries, over log of visible keys.",
        healthy="Heads differ; a layer below 0.05 has collapsed onto single tokens.",
        by="layer",
        guide=0.05,
        source="arXiv:2303.06296",
    ),
    Measure(
        "max_attention_logit",
        title="Largest attention logit",
        unit="max |q·k|/√d",
        about="The largest score before attention's softmax on the probe batch.",
        healthy="Tens at most; growth into the hundreds precedes a divergence, which QK-norm prevents.",
        by="layer",
        heads="max",
        log=True,
        source="arXiv:2302.05442",
    ),
    Measure(
        "logit_max",
        title="Largest logit",
        unit="max |logit|",
        about="The largest score of a token on the probe batch.",
        healthy="Levels off; a steady climb may be held by train.z_loss or final_logit_softcapping.",
    ),
    Measure(
        "logit_z",
        title="Log partition z",
        unit="nats",
        about="Mean logsumexp of the logits on the probe batch.",
        healthy="Any level does, drifting far from where it began does not: train.z_loss holds it near 0.",
        source="arXiv:2204.02311",
    ),
    Measure(
        "weight_rms",
        title="Weight RMS",
        unit="root mean square",
        about="Typical size of a weight; the median over matrices.",
        healthy="Changes slowly; growth all along is held by train.weight_decay.",
        by="matrix",
        log=True,
    ),
    Measure(
        "residual_rms",
        title="Residual stream RMS",
        unit="root mean square",
        about="Typical size of the residual stream after each layer, on the probe batch; the last layer's.",
        healthy="Grows from layer to layer by less than ten times in all.",
        by="layer",
        log=True,
    ),
    Measure(
        "induction_score",
        title="Induction",
        unit="mean attention",
        about="On repeated random tokens, the attention paid to the token after the last occurrence; the best head's.",
        healthy="Rises suddenly when the model begins to copy from its context; that of a uniform head is near 0.",
        by="layer",
        heads="max",
        source="arXiv:2209.11895",
    ),
    Measure(
        "previous_token_score",
        title="Previous token",
        unit="mean attention",
        about="On repeated random tokens, the attention paid to the token before; the best head's.",
        healthy="Rises before induction does, which is built on it.",
        by="layer",
        heads="max",
        source="arXiv:2209.11895",
    ),
    Measure(
        "duplicate_token_score",
        title="Duplicate token",
        unit="mean attention",
        about="On repeated random tokens, the attention to the same token earlier; the best head's.",
        by="layer",
        heads="max",
        source="arXiv:2209.11895",
    ),
    Measure(
        "in_context_score",
        title="In-context learning",
        unit="nats per token",
        about="Loss on the first copy of repeated random tokens minus the loss on the second.",
        healthy="0 for a model that cannot copy from its context; rises together with induction.",
        guide=0.0,
        source="arXiv:2209.11895",
    ),
    Measure(
        "tokens_sec",
        title="Speed",
        unit="tokens a second",
        about="Between two readings, evaluation and saving left out.",
        healthy="Level. A fall is another program, heat, or memory.",
    ),
    Measure(
        "mfu",
        title="Model FLOPs utilisation",
        unit="share of the matrix peak",
        about="The model's operations a second over the matrix-multiply peak measured here, in its precision.",
        healthy="0.3 to 0.6; lower for models of few parameters.",
        source="arXiv:2204.02311, appendix B",
    ),
    Measure(
        "data_wait",
        title="Waiting for data",
        unit="share of the step",
        about="Time a step spends until its batch is there.",
        healthy="Below 0.05.",
    ),
    Measure(
        "bits_per_byte",
        title="Bits per byte",
        unit="bits per UTF-8 byte of validation text",
        about="The validation loss counted by bytes: what compares across tokenizers.",
        healthy="Falls.",
    ),
    Measure(
        "excess",
        title="Excess over the floor",
        unit="nats per token",
        about="Validation loss minus the corpus's own -log p, paired by whole document, where the corpus knows it.",
        healthy="Falls towards 0; below 0 by more than three standard errors, validation text has leaked.",
        guide=0.0,
    ),
)

MEASURES = {measure.name: measure for measure in CATALOGUE}

SPIKE = "spike"  # at a step whose loss is above the median of the last 50 by 6 median absolute deviations: that limit
