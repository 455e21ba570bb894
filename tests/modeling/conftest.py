"""Small models for the model's tests: every weight random, so that nothing is hidden behind a zero or a one."""

from collections.abc import Callable

import pytest
import torch

from modeling import LabGPTConfig, LabGPTForCausalLM

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """A fresh model's output matrices are zero and its gains one: tests on it would see no attention at all."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(0, 0.15, generator=generator)
            else:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))


@pytest.fixture(autouse=True)
def one_thread():
    """Work this small is slower on two threads, and far slower where other work takes the second core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Callable[..., LabGPTForCausalLM]:
    """`tiny(**fields)`: a LabGPTForCausalLM of 32 × 2 × 4 with random weights, in evaluation mode."""

    def make(seed: int = 0, **fields) -> LabGPTForCausalLM:
        model = LabGPTForCausalLM(LabGPTConfig(**{**SIZES, **fields}))
        randomize(model, seed)
        return model.eval()

    return make


@pytest.fixture
def tokens() -> Callable[..., torch.Tensor]:
    """`tokens(batch, length)`: random ids, none of them a special token."""

    def make(batch: int, length: int, seed: int = 0) -> torch.Tensor:
        return torch.randint(3, SIZES["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))

    return make
