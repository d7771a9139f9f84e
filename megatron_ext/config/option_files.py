"""The YAML files that a recipe's layout names: of tensor-parallel overlap, and of NCCL.

Transformer Engine and PyTorch would fail on a mistake in the middle of the start, or ignore it.
"""

from pathlib import Path
from typing import Any

from galen import shipped, yaml_text
from galen.errors import UsageError
from megatron_ext.config.recipe import Recipe

_OVERLAP_KEY = "parallel.tp_comm_overlap_cfg"
_NCCL_KEY = "parallel.nccl_communicator_config_path"

_METHODS = {
    "qkv_fprop": ("ring_exchange",),
    "proj_fprop": ("pipeline", "ring_exchange"),
    "fc1_fprop": ("ring_exchange",),
    "fc2_fprop": ("pipeline", "ring_exchange"),
    "qkv_dgrad": ("bulk",),
    "proj_dgrad": ("ring_exchange",),
    "fc1_dgrad": ("bulk",),
    "fc2_dgrad": ("ring_exchange",),
    "qkv_wgrad": ("bulk",),
    "fc1_wgrad": ("bulk",),
}
"""Methods that fit what Megatron Core overlaps by default with each GEMM.

Others need further switches of its configuration (`tp_comm_overlap_rs_dgrad`).
"""
_OVERLAP_NUMBERS = ("num_sm", "cga_size", "num_splits")
_OVERLAP_FLAGS = ("set_sm_margin", "aggregate", "use_ce", "fp8_buf", "atomic_gemm")

_GROUPS = frozenset(
    {
        *("tp", "pp", "dp", "cp", "dp_cp", "tp_cp", "tp_dp", "tp_dp_cp", "mp", "embd", "pos_embd"),
        *("hcp", "intra_dp_cp", "intra_dist_opt_instance"),
        *("ep", "ep_tp", "ep_dp", "intra_ep_dp", "tp_ep_mp", "tp_ep_pp"),  # of experts
    }
)
"""Process groups to which Megatron Core passes NCCL's options."""
_NCCL_NUMBERS = ("min_ctas", "max_ctas", "cga_cluster_size")
_NETWORKS = ("IB", "socket")


def check(run: Recipe) -> None:
    """Check the files that a recipe names.

    Raises:
        UsageError: one cannot be read, or has an unknown or unsupported entry.
    """
    if run.parallel.tp_comm_overlap_cfg is not None:
        read_overlap(run.parallel.tp_comm_overlap_cfg)
    if run.parallel.nccl_communicator_config_path is not None:
        _check_communicators(run.parallel.nccl_communicator_config_path)


def read_overlap(path: str) -> dict[str, dict[str, Any]]:
    """Return the options of Transformer Engine's buffers for each GEMM.

    Raises:
        UsageError: an entry is unknown, or does not fit what Megatron Core overlaps.
    """
    options = _read(_OVERLAP_KEY, path)
    for gemm, entry in options.items():
        where = f"{_OVERLAP_KEY}: {path}: {gemm}"
        if gemm not in _METHODS:
            raise UsageError(f"{where} is no overlapped GEMM; known: {', '.join(_METHODS)}")
        _check_names(where, entry, ("method", *_OVERLAP_NUMBERS, *_OVERLAP_FLAGS))
        method = entry.get("method", _METHODS[gemm][0])
        if method not in _METHODS[gemm]:
            raise UsageError(f"{where}.method must be {' or '.join(_METHODS[gemm])}, not {method}")
        for name in _OVERLAP_NUMBERS:
            # 0 splits: as many as tensor-parallel processes
            _check_number(where, entry, name, least=0 if name == "num_splits" else 1)
        for name in _OVERLAP_FLAGS:
            _check_flag(where, entry, name)
        if entry.get("atomic_gemm"):
            raise UsageError(
                f"{where}.atomic_gemm is experimental in Transformer Engine; remove it"
            )
    return options


def _check_communicators(path: str) -> None:
    """Check NCCL's options for each process group."""
    for group, entry in _read(_NCCL_KEY, path).items():
        where = f"{_NCCL_KEY}: {path}: {group}"
        if group not in _GROUPS:
            raise UsageError(f"{where} is no process group; known: {', '.join(sorted(_GROUPS))}")
        _check_names(where, entry, (*_NCCL_NUMBERS, "net_name", "is_high_priority_stream"))
        for name in _NCCL_NUMBERS:
            _check_number(where, entry, name)
        _check_flag(where, entry, "is_high_priority_stream")
        if entry.get("min_ctas", 1) > entry.get("max_ctas", entry.get("min_ctas", 1)):
            raise UsageError(f"{where}.min_ctas must not exceed max_ctas")
        if entry.get("net_name", "IB") not in _NETWORKS:
            raise UsageError(f"{where}.net_name must be {' or '.join(_NETWORKS)}")


def _read(key: str, path: str) -> dict[str, dict[str, Any]]:
    """Return a file's mapping of mappings."""
    if not shipped.resolve(path).is_file():
        raise UsageError(f"{key}: {path} does not exist, or is not a file")
    try:
        content, _ = yaml_text.read(Path(path))
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None
    if not content:
        raise UsageError(f"{key}: {path} must be a mapping of names to options")
    for name, entry in content.items():
        if not isinstance(entry, dict) or not entry:
            raise UsageError(f"{key}: {path}: {name} must be a mapping of options")
    return content


def _check_names(where: str, entry: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = [str(name) for name in entry if name not in known]
    if unknown:
        raise UsageError(f"{where}.{unknown[0]} is unknown; known: {', '.join(known)}")


def _check_number(where: str, entry: dict[str, Any], name: str, least: int = 1) -> None:
    value = entry.get(name, least)
    if type(value) is not int or value < least:
        raise UsageError(f"{where}.{name} must be a whole number of at least {least}, not {value}")


def _check_flag(where: str, entry: dict[str, Any], name: str) -> None:
    value = entry.get(name, False)
    if value not in (False, True):  # 0 and 1 too, as in Megatron-LM's files
        raise UsageError(f"{where}.{name} must be true or false, not {value}")
