"""Binds a process to the processors of its GPU's NUMA node (Linux)."""

import os
from pathlib import Path

_DEVICES = Path("/sys/bus/pci/devices")
DISABLED = "GALEN_NUMA_BINDING"
"""Environment variable that disables the binding if it is 0."""


def bind(pci_address: str, devices: Path = _DEVICES) -> str | None:
    """Bind this process, and those that it starts from now on, to the processors near a device.

    Those outside the process's present affinity are left out: a binding by Slurm or numactl stays.

    Args:
        pci_address: of the device, for example 0000:1b:00.0.
        devices: folder of the devices' properties.

    Returns:
        The processors as the system lists them, for example 0-47,96-143; None if nothing was bound.
    """
    if os.environ.get(DISABLED) == "0" or not hasattr(os, "sched_setaffinity"):
        return None
    try:
        near = (devices / pci_address / "local_cpulist").read_text().strip()
    except OSError:
        return None
    cpus = _parse(near) & os.sched_getaffinity(0)
    if not cpus:
        return None
    os.sched_setaffinity(0, cpus)
    return near


def _parse(cpu_list: str) -> set[int]:
    """Return the numbers of a list like 0-3,8."""
    cpus: set[int] = set()
    for part in filter(None, cpu_list.split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus
