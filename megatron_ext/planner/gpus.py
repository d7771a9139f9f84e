"""GPUs with the figures of NVIDIA's data sheets (dense, no sparsity).

MFU is relative to the peaks; `GPUS` are the types that `galen plan` supports.
"""

import dataclasses

PEAK_BF16_FLOPS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
}
"""Tensor-core peak in FLOP/s by a substring of the device name; the first match counts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuSpec:
    """One GPU of a node of eight, and its network adapter."""

    device_name: str
    """Its name in CUDA."""
    memory: float
    """Usable bytes, as shown by nvidia-smi."""
    bf16_flops: float
    """Peak FLOP/s of bf16 matrix products."""
    fp8_flops: float | None
    """Peak FLOP/s of FP8 matrix products; None if unsupported."""
    memory_bandwidth: float
    """Bytes/s."""
    nvlink: float
    """Bytes/s in one direction to the other GPUs of the node."""
    network: float
    """Bytes/s in one direction to other nodes.

    One 400 Gbit/s adapter (A100: 200 Gbit/s) for each GPU, as in DGX systems.
    """
    per_node: int = 8


_A100 = GpuSpec(
    device_name="NVIDIA A100-SXM4-80GB",
    memory=81920 * 2**20,
    bf16_flops=PEAK_BF16_FLOPS["A100"],
    fp8_flops=None,
    memory_bandwidth=2.04e12,
    nvlink=300e9,
    network=25e9,
)
_H100 = GpuSpec(
    device_name="NVIDIA H100 80GB HBM3",
    memory=81559 * 2**20,
    bf16_flops=PEAK_BF16_FLOPS["H100"],
    fp8_flops=1979e12,
    memory_bandwidth=3.35e12,
    nvlink=450e9,
    network=50e9,
)
# the same processor with other memory
_H200 = dataclasses.replace(
    _H100, device_name="NVIDIA H200", memory=143771 * 2**20, memory_bandwidth=4.8e12
)
GPUS = {"a100-80gb": _A100, "h100-80gb": _H100, "h200": _H200}


def peak_bf16_flops(device_name: str) -> float | None:
    """Return the peak bf16 FLOP/s of a device by its name in CUDA, None if unknown."""
    for name, peak in PEAK_BF16_FLOPS.items():
        if name in device_name:
            return peak
    return None
