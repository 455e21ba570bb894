"""What a run would take on well-known GPUs, by calculation from their makers' figures.

May import nothing of ours. Peaks are dense and of one GPU: half of the figure where a datasheet counts structured
sparsity, and of GeForce cards the rate with fp32 accumulation, which training uses.
"""

from dataclasses import dataclass

UTILISATION = 0.35  # of the peak: PaLM reports 46 % (arXiv:2204.02311, table 3), a small model reaches less
CONTEXT = 1_000_000_000  # bytes that CUDA itself, its kernels and its libraries take
RESERVE = 1.1  # the caching allocator holds about a tenth more than is in use


@dataclass(frozen=True)
class GPU:
    """Memory in bytes, peaks in floating-point operations a second; None where the format has no units of its own."""

    name: str
    memory: float
    fp32: float
    fp16: float
    bf16: float | None
    source: str

    @property
    def half(self) -> str:
        """The 16-bit format that training takes there."""
        return "fp16" if self.bf16 is None else "bf16"

    def peak(self, precision: str) -> float | None:
        return getattr(self, precision)


GPUS = (
    GPU("T4", 16e9, 8.1e12, 65e12, None,
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf"),
    GPU("RTX 3060", 12e9, 12.7e12, 25.5e12, 25.5e12,
        "https://www.nvidia.com/en-us/geforce/graphics-cards/30-series/rtx-3060-3060ti/"),
    GPU("RTX 3090", 24e9, 35.6e12, 71e12, 71e12,
        "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"),
    GPU("RTX 4090", 24e9, 82.6e12, 165.2e12, 165.2e12,
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"),
    GPU("A10", 24e9, 31.2e12, 125e12, 125e12,
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a10/pdf/datasheet-new/nvidia-a10-datasheet.pdf"),
    GPU("L4", 24e9, 30.3e12, 121e12, 121e12, "https://www.nvidia.com/en-us/data-center/l4/"),
    GPU("A100", 80e9, 19.5e12, 312e12, 312e12, "https://www.nvidia.com/en-us/data-center/a100/"),
    GPU("H100", 80e9, 67e12, 989.5e12, 989.5e12, "https://www.nvidia.com/en-us/data-center/h100/"),
    GPU("H200", 141e9, 67e12, 989.5e12, 989.5e12, "https://www.nvidia.com/en-us/data-center/h200/"),
    GPU("B200", 180e9, 75e12, 2250e12, 2250e12, "https://www.nvidia.com/en-us/data-center/hgx/"),
)  # fmt: skip


@dataclass(frozen=True)
class OnGPU:
    """A run on one GPU: whether its memory holds it, and the seconds that its arithmetic takes, by precision."""

    gpu: GPU
    needed: int
    seconds: dict[str, float]

    @property
    def fits(self) -> bool:
        return self.needed <= self.gpu.memory


def on_gpus(flops: float, tensors: int) -> list[OnGPU]:
    """The run on every GPU of the table, uncompiled and unsharded.

    Args:
        flops: floating-point operations of the whole run.
        tensors: bytes of all tensors at the fullest moment of a step, in the recipe's own precision.
    """
    needed = int(RESERVE * tensors) + CONTEXT
    return [
        OnGPU(gpu, needed, {kind: flops / (gpu.peak(kind) * UTILISATION) for kind in ("fp32", gpu.half)})
        for gpu in GPUS
    ]
