"""LabGPT: a decoder-only transformer whose parts are chosen by its configuration, as Hugging Face classes.

Imports the parts (`attention`, `positions`, `norms`, `feed_forward`) and the library. Module names are the library's
own, so LoRA targets, hooks and converters need no table of ours.

Shapes: B batch, T time, C hidden size, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GenericForSequenceClassification, GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import ATTENTIONS, Attention
from .configuration_labgpt import LabGPTConfig
from .decoding import Step, decode
from .feed_forward import FEED_FORWARDS
from .norms import NORMS
from .positions import POSITIONS


class Block(GradientCheckpointingLayer):
    """Attention and feed-forward around one residual stream; where the norms stand is the subclass's business."""

    def __init__(self, config: LabGPTConfig, layer_idx: int):
        super().__init__()
        self.self_attn = ATTENTIONS[config.attention](config, layer_idx)
        self.mlp = FEED_FORWARDS[config.gated_mlp](config)
        self.dropout = nn.Dropout(config.hidden_dropout)


class PreNormBlock(Block):
    """x + f(norm(x)) (arXiv:2002.04745): the stream itself is never normalised, until once at its end."""

    def __init__(self, config: LabGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.input_layernorm = NORMS[config.norm](config.hidden_size, eps=config.norm_eps)
        self.post_attention_layernorm = NORMS[config.norm](config.hidden_size, eps=config.norm_eps)

    def forward(self, x: Tensor, **context) -> Tensor:
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), **context)[0])
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))

    @staticmethod
    def final_norm(config: LabGPTConfig) -> nn.Module:
        return NORMS[config.norm](config.hidden_size, eps=config.norm_eps)


class PostNormBlock(Block):
    """norm(x + f(x)), the original order (arXiv:1706.03762): what leaves a block is normalised already."""

    def __init__(self, config: LabGPTConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.post_attention_layernorm = NORMS[config.norm](config.hidden_size, eps=config.norm_eps)
        self.post_feedforward_layernorm = NORMS[config.norm](config.hidden_size, eps=config.norm_eps)

    def forward(self, x: Tensor, **context) -> Tensor:
        x = self.post_attention_layernorm(x + self.dropout(self.self_attn(x, **context)[0]))
        return self.post_feedforward_layernorm(x + self.dropout(self.mlp(x)))

    @staticmethod
    def final_norm(config: LabGPTConfig) -> nn.Module:
        return nn.Identity()


BLOCKS = {
    "pre": PreNormBlock,
    "post": PostNormBlock,
}


class SoftCap(nn.Module):
    """cap·tanh(x / cap): logits stay inside ±cap and keep their order (arXiv:2408.00118)."""

    def __init__(self, cap: float):
        super().__init__()
        self.cap = cap

    def forward(self, logits: Tensor) -> Tensor:
        return self.cap * torch.tanh(logits / self.cap)


class LabGPTPreTrainedModel(PreTrainedModel):
    """What the library asks of every model: names, what is supported, how weights start."""

    config_class = LabGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["PreNormBlock", "PostNormBlock"]  # noqa: RUF012 (the library's convention)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": Block, "attentions": Attention}  # noqa: RUF012

    @property
    def _supports_flex_attn(self) -> bool:
        return POSITIONS[self.config.position_embedding].supports_flex

    @property
    def _is_stateful(self) -> bool:
        """A state that cannot be rolled back: the library then refuses assisted generation by name."""
        return ATTENTIONS[self.config.attention].is_stateful

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights of one leaf module; weights that were loaded are left alone by `init`.

        Matrices start at N(0, 1/C), so that a unit-size input gives unit-size queries, keys and units. A module that
        starts at another size has an `initial_scale`, with the reason, where it is made. One `initializer_range` for
        all replaces both.
        """
        super()._init_weights(module)  # norms: gain 1, bias 0
        scale = getattr(module, "initial_scale", 1.0) if self.config.initializer_range is None else 1.0
        if isinstance(module, (nn.Linear, nn.Embedding)):
            std = self.config.initializer_range or self.config.hidden_size**-0.5
            init.normal_(module.weight, std=scale * std)
        elif isinstance(module, tuple(NORMS.values())):
            init.constant_(module.weight, scale)


class LabGPTModel(LabGPTPreTrainedModel):
    """Tokens to the last hidden state: embedding, blocks, final norm."""

    def __init__(self, config: LabGPTConfig):
        super().__init__(config)
        block = BLOCKS[config.norm_position]
        self.attention = ATTENTIONS[config.attention]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = POSITIONS[config.position_embedding](config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(block(config, i) for i in range(config.num_hidden_layers))
        self.norm = block.final_norm(config)
        self.gradient_checkpointing = False
        if config.tie_word_embeddings:
            # A tied head's logit for the very token it reads would be √C: with this gain it is 1, and the others are
            # 1/√C in size, so that the loss starts at ln V whatever the width (docs/model.md).
            *_, last_norm = (m for m in self.modules() if isinstance(m, tuple(NORMS.values())))
            last_norm.initial_scale = config.hidden_size**-0.5
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Token ids (B, T), or embeddings in their place -> hidden states (B, T, C)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        mask = self.attention.mask(self.config, x, attention_mask, position_ids, past_key_values)
        if position_ids is None:
            position_ids = self.count_positions(x, attention_mask, past_key_values)
        x = self.dropout(self.positions.embed(x, position_ids))
        context = {
            "rotation": self.positions.rotation(x, position_ids),
            "attention_mask": self.positions.bias(mask, x, past_key_values),
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            **kwargs,
        }
        for layer in self.layers:
            x = layer(x, **context)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=past_key_values)

    def count_positions(self, x: Tensor, attention_mask: Tensor | dict | None, cache: Cache | None) -> Tensor:
        """Positions (B or 1, T) of the new tokens: padding is not counted, what the cache holds is."""
        T = x.shape[1]
        if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
            return (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -T:]
        seen = 0 if cache is None else cache.get_seq_length()
        return torch.arange(T, device=x.device)[None] + seen


class LabGPTForCausalLM(LabGPTPreTrainedModel, GenerationMixin):
    """The model with its head: hidden states to a score for each next token."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LabGPTConfig):
        super().__init__(config)
        self.model = LabGPTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.lm_head.initial_scale = 0.25  # logits of size 1/4: the loss starts 0.03 above ln V
        cap = config.final_logit_softcapping
        self.soft_cap = nn.Identity() if cap is None else SoftCap(cap)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Token ids (B, T) -> logits (B, T, V), and the loss where `labels` are given.

        The arguments' names and order are the library's: `generate` asks the signature what it may pass.

        Args:
            labels: (B, T) the input ids themselves, shifted here; -100 is not scored. With `shift_labels` too, those
                are taken as they are, position by position.
            logits_to_keep: how many of the last positions (0: all), or which.
        """
        if use_cache is None and labels is not None:
            use_cache = False  # a text that is scored is whole
        outputs = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache=use_cache, **kwargs
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.soft_cap(self.lm_head(outputs.last_hidden_state[:, keep]))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def decode(self, input_ids: Tensor, **how) -> Iterator[Step]:
        """Yield one `Step` a token: `decoding.decode`, which has the arguments. As `generate`, and faster."""
        return decode(self, input_ids, **how)


class LabGPTForSequenceClassification(GenericForSequenceClassification, LabGPTPreTrainedModel):
    """The library's classification head on the last token that is not padding."""

    def __init__(self, config: LabGPTConfig):
        # The generic head finds its model in the Auto registry, where a model opened from a folder is not.
        LabGPTPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = LabGPTModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


# `save_pretrained` copies these files beside the weights, so that a folder opens where this project is not installed.
LabGPTModel.register_for_auto_class("AutoModel")
LabGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
LabGPTForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
