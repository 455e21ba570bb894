"""Settings shared by all tests: two threads, no network, compiled kernels cached between tests."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "llm-lab-inductor"))

import pytest
import torch

from data.workspace import Workspace

torch.set_num_threads(2)


def pytest_collection_modifyitems(items):
    """`gpu` tests need a CUDA device and say so where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")
