"""The configuration: what a LabGPT is made of. Every choice names a class in a table beside its kind.

Imports the tables (`attention`, `positions`, `norms`, `feed_forward`) to check its own values against them.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .attention import ATTENTIONS
from .feed_forward import ACTIVATIONS
from .norms import NORMS
from .positions import POSITIONS

# Written into every config.json: which file and class opens the folder, for each of the library's Auto classes.
AUTO_MAP = {
    "AutoConfig": "configuration_labgpt.LabGPTConfig",
    "AutoModel": "modeling_labgpt.LabGPTModel",
    "AutoModelForCausalLM": "modeling_labgpt.LabGPTForCausalLM",
    "AutoModelForSequenceClassification": "modeling_labgpt.LabGPTForSequenceClassification",
}
NORM_PLACES = ("pre", "post")
ROPE_TYPES = ("default", "linear")
POSITIVE = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "max_position_embeddings", "sliding_window", "norm_eps", "final_logit_softcapping",
    "initializer_range",
)  # fmt: skip


@strict
class LabGPTConfig(PreTrainedConfig):
    """A GPT by its parts. Left alone, it is a small modern one: rotary positions, RMSNorm, squared ReLU, QK-norm."""

    model_type = "labgpt"
    keys_to_ignore_at_inference = ("past_key_values",)

    # size
    vocab_size: int = 1024
    hidden_size: int = 128  # width of the residual stream
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None  # None: as many as query heads; fewer: grouped queries; 1: multi-query
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    intermediate_size: int | None = None  # None: 4·hidden_size; gated, 8/3 of it, for as many parameters
    max_position_embeddings: int = 1024  # the length it is made for; a hard limit with learned positions alone

    # kinds
    attention: str = "softmax"  # "softmax" or "linear"
    sliding_window: int | None = None  # tokens a query sees, itself included; None: all
    position_embedding: str = "rope"  # "learned", "sinusoidal", "rope", "alibi" or "none"
    rope_parameters: dict | None = None  # {"rope_theta": 10000.0, "rope_type": "default"}, or "linear" with a "factor"
    partial_rotary_factor: float | int | None = None  # share of each head that rope turns; None: all
    norm: str = "rmsnorm"  # "rmsnorm" or "layernorm"
    norm_position: str = "pre"  # "pre": before each half of a block; "post": after adding it to the stream
    norm_eps: float = 1e-6
    hidden_act: str = "relu2"  # "relu", "relu2", "gelu", "gelu_new" or "silu"
    gated_mlp: bool = False  # with silu: SwiGLU; with gelu: GEGLU

    # details
    qk_norm: bool = True  # normalise queries and keys, head by head
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False  # one matrix reads tokens in and out
    final_logit_softcapping: float | int | None = None  # cap·tanh(logits / cap) (arXiv:2408.00118)
    attention_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0  # after the embedding and after each half of a block
    initializer_range: float | int | None = None  # one std for all matrices; None: derived (docs/model.md)

    # the library's
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        self._check_kinds()
        self._check_sizes()
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.intermediate_size is None:
            # 16: the floats of a vector register, so that no kernel has a ragged end
            two_thirds = -(-8 * self.hidden_size // (3 * 16)) * 16
            self.intermediate_size = two_thirds if self.gated_mlp else 4 * self.hidden_size
        self._check_pairs()
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)
        if self.position_embedding != "rope":
            self.rope_parameters = None  # the library fills it in for every model that has the field
        self._check_rope()

    def validate_architecture(self) -> None:
        """The library calls this before saving too: a field may have been set since."""
        self._check_kinds()
        self._check_sizes()
        self._check_pairs()
        self._check_rope()

    @property
    def layer_types(self) -> list[str]:
        """The library's name for each layer's attention: its caches go by it."""
        return [ATTENTIONS[self.attention].layer_type(self)] * self.num_hidden_layers

    @property
    def rotary_dim(self) -> int:
        """Components of a head that rope turns."""
        return int(self.head_dim * (self.rope_parameters or {}).get("partial_rotary_factor", 1.0))

    def _check_kinds(self) -> None:
        tables = {
            "attention": ATTENTIONS,
            "position_embedding": POSITIONS,
            "norm": NORMS,
            "norm_position": NORM_PLACES,
            "hidden_act": ACTIVATIONS,
        }
        for field, table in tables.items():
            if getattr(self, field) not in table:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {', '.join(map(repr, table))}")

    def _check_sizes(self) -> None:
        for field in POSITIVE:
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise ValueError(f"{field}={value} must be above 0")
        for field in ("attention_dropout", "hidden_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 0 and below 1")
        C, H, G = self.hidden_size, self.num_attention_heads, self.num_key_value_heads
        if self.head_dim is None and C % H:
            raise ValueError(f"num_attention_heads={H} does not divide hidden_size={C}: change one, or give head_dim")
        if G is not None and H % G:
            raise ValueError(f"num_key_value_heads={G} does not divide num_attention_heads={H}")
        if self.position_embedding == "sinusoidal" and C % 2:
            raise ValueError(f"hidden_size={C} must be even for sinusoidal positions, which come as sine and cosine")

    def _check_pairs(self) -> None:
        """Combinations that no formula defines."""
        if self.attention == "linear":
            if self.position_embedding == "alibi":
                raise ValueError("position_embedding='alibi' is a bias on softmax scores: linear attention has none")
            for field, off in (("sliding_window", None), ("attention_dropout", 0)):
                if getattr(self, field) != off:
                    raise ValueError(f"{field}={getattr(self, field)} is not defined for linear attention: use {off}")
        if self.position_embedding != "rope":
            for field in ("rope_parameters", "partial_rotary_factor"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field} is for position_embedding='rope', not {self.position_embedding!r}")

    def _check_rope(self) -> None:
        if self.position_embedding != "rope":
            return
        kind = self.rope_parameters["rope_type"]
        if kind not in ROPE_TYPES:
            raise ValueError(f"rope_parameters: rope_type={kind!r} is not one of {', '.join(map(repr, ROPE_TYPES))}")
        if self.rope_parameters["rope_theta"] <= 0 or self.rope_parameters.get("factor", 1.0) <= 0:
            raise ValueError(f"rope_parameters={self.rope_parameters}: rope_theta and factor must be above 0")
        if not 0 < self.rope_parameters.get("partial_rotary_factor", 1.0) <= 1:
            raise ValueError(f"partial_rotary_factor={self.partial_rotary_factor} must be above 0 and at most 1")
        if self.rotary_dim % 2 or self.rotary_dim == 0:
            raise ValueError(
                f"rope turns pairs, but {self.rotary_dim} components of each head (head_dim={self.head_dim}) are not "
                "an even number above 0: change head_dim, num_attention_heads or partial_rotary_factor"
            )


LabGPTConfig.register_for_auto_class()
