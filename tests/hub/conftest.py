"""Runs and checkpoints small enough to make by the dozen."""

import pytest

from hub.checkpoints import save_checkpoint
from hub.runs import Run

INPUTS = {
    "corpus": {"name": "tales", "sha256": "c" * 64},
    "tokenizer": {"name": "tales-bpe-1024@v1", "sha256": "d" * 64},
}
RECIPE = "data:\n  corpus: tales\ntrain:\n  steps: 500\n  learning_rate: 0.001\n"


@pytest.fixture
def make_run(workspace):
    def make(name: str = "tales", recipe: str = RECIPE, status: str = "queued", seed: int = 0) -> Run:
        command = ["python", "-m", "training.pretrain", "--recipe", "tales"]
        return Run.create(workspace, name, "pretrain", command, recipe, seed, INPUTS, status=status)

    return make


@pytest.fixture
def run(make_run) -> Run:
    return make_run()


@pytest.fixture
def save():
    """Save a checkpoint of a few bytes, different at every step."""

    def model(folder, step):
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(f"weights {step}".encode() * 20)

    def make(run: Run, step: int):
        return save_checkpoint(
            run,
            step,
            lambda folder: model(folder, step),
            lambda folder: (folder / "training.pt").write_bytes(f"state {step}".encode() * 30),
        )

    return make
