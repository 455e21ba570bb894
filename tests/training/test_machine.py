"""How a step is computed on a machine: decided by what was measured, the same in every process."""

import pytest

from training import machine


@pytest.mark.parametrize(
    ("device", "compiled", "context", "faster"),
    [("cpu", True, 64, "eager"), ("cpu", True, 128, "eager"), ("cpu", True, 256, "sdpa"), ("cpu", False, 64, "sdpa"),
     ("cuda", True, 64, "sdpa")],
)  # fmt: skip
def test_attention_is_written_out_where_that_was_measured_to_be_faster(device, compiled, context, faster):
    assert machine.choose_attention(device, compiled, context) == faster


def test_kernels_are_chosen_by_trial_only_without_determinism():
    """Two processes may choose differently: what has to give the same bits must not depend on a stopwatch."""
    assert "max_autotune" not in machine.compile_options("cpu", deterministic=True)
    assert machine.compile_options("cpu", deterministic=False)["max_autotune"]
    assert machine.compile_options("cuda", deterministic=True) is None
