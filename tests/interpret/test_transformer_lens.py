"""The same names and the same tensors as TransformerLens, where it is installed.

Before version 4 that library computes GPT-2 with code of its own, the stronger proof; since then it hooks the model of
`transformers`, as is done here, and what agrees are names and what they mean.
"""

from importlib.metadata import version

import pytest
import torch
from torch import Tensor

from interpret.ablation import edits, parse_target
from interpret.record import record
from interpret.sites import IN_LAYER
from tests.interpret.conftest import VOCABULARY, build

lens = pytest.importorskip("transformer_lens")
pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def gpt2():
    return build("gpt2")


@pytest.fixture(scope="module")
def theirs(gpt2, tokenizer, tmp_path_factory):
    """The same weights in TransformerLens, as they are: nothing folded into others, nothing centred."""
    if int(version("transformer_lens").partition(".")[0]) >= 4:
        from transformer_lens.model_bridge import TransformerBridge

        folder = tmp_path_factory.mktemp("gpt2")
        gpt2.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return TransformerBridge.boot_transformers(str(folder))
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = lens.HookedTransformerConfig(
        n_layers=gpt2.config.n_layer,
        d_model=gpt2.config.n_embd,
        n_heads=gpt2.config.n_head,
        d_head=gpt2.config.n_embd // gpt2.config.n_head,
        d_mlp=4 * gpt2.config.n_embd,
        n_ctx=gpt2.config.n_positions,
        d_vocab=gpt2.config.vocab_size,
        act_fn=gpt2.config.activation_function,
        eps=gpt2.config.layer_norm_epsilon,
        normalization_type="LN",
        device="cpu",
    )
    model = lens.HookedTransformer(config)
    unknown = model.load_state_dict(convert_gpt2_weights(gpt2, config), strict=False)
    assert {name.rpartition(".")[2] for name in unknown.missing_keys} <= {"mask", "IGNORE", "b_U"}  # no weights
    torch.nn.init.zeros_(model.unembed.b_U)
    return model.eval()


def close(ours: Tensor, other: Tensor) -> None:
    lowest = torch.finfo(other.dtype).min / 2  # version 4 shows the number that the library masks with, ours -inf
    other = other.masked_fill(other < lowest, -torch.inf)
    torch.testing.assert_close(ours, other, atol=1e-4, rtol=0)


@torch.no_grad()
def test_same_names_and_same_tensors(gpt2, theirs):
    logits, cache = theirs.run_with_cache(IDS)
    found = record(gpt2, IDS, ["embed", *IN_LAYER, "ln_final", "logits"])
    assert len(found) == 3 + len(IN_LAYER) * gpt2.config.n_layer
    for layer in range(gpt2.config.n_layer):
        for name in IN_LAYER:
            close(found[f"blocks.{layer}.{name}"], cache[name, layer])
    close(found["embed"], cache["embed"])
    close(found["ln_final"], cache["unembed.hook_in"])
    close(found["logits"], logits)


@torch.no_grad()
def test_a_head_taken_out_leaves_the_same(gpt2, theirs):
    def without_head_two(z: Tensor, hook) -> Tensor:
        z = z.clone()
        z[:, :, 2] = 0
        return z

    logits = theirs.run_with_hooks(IDS, fwd_hooks=[("blocks.0.attn.hook_z", without_head_two)])
    ours = record(gpt2, IDS, ["logits"], edits=edits(gpt2, [parse_target("L0H2")], "zero"))["logits"]
    assert not torch.allclose(ours, record(gpt2, IDS, ["logits"])["logits"], atol=1e-2)
    close(ours, logits)
