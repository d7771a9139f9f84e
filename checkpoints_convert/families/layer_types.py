"""Layers with a sliding window in config.json, and rotary positions that depend on them.

`layer_types` names each layer `sliding_attention` or `full_attention`; `rope_parameters` of a model
whose windowed layers have rotary positions of their own has an entry for either.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from megatron_ext.config.architecture import Architecture

SLIDING = "sliding_attention"
FULL = "full_attention"


def every_nth_full(num_layers: int, period: int) -> list[str]:
    """Return layer types of which every `period`-th is full attention."""
    return [SLIDING if (layer + 1) % period else FULL for layer in range(num_layers)]


def from_architecture(architecture: Architecture) -> list[str]:
    """Return the layer types of a model."""
    default = 0 if architecture.window_size is None else 1
    layers = architecture.window_attn_skip_freq or (default,) * architecture.num_layers
    return [SLIDING if windowed else FULL for windowed in layers]


def written_window(architecture: Architecture) -> int:
    """Return `sliding_window` for config.json.

    transformers makes the mask of the windowed layers even if there are none, and needs a number.
    """
    return architecture.window_size or architecture.max_position_embeddings


def window_fields(
    layer_types: Sequence[str] | None, window: int | None, local_base: float | None = None
) -> dict[str, Any]:
    """Return the fields of Architecture for windows in layers of type `sliding_attention`.

    Args:
        layer_types: the type of each layer; None for a window in all, if there is one.
        window: tokens of a window.
        local_base: rotary base of these layers if they have their own.

    Raises:
        ValueError: a type is unknown, or there is no window for it.
    """
    if layer_types is None:
        return {"window_size": window}
    if unknown := sorted(set(layer_types) - {SLIDING, FULL}):
        raise ValueError(f"layer_types: {unknown[0]!r} is not supported (only {SLIDING}, {FULL})")
    if SLIDING not in layer_types:
        return {"window_size": None}
    if window is None:
        raise ValueError(f"layer_types has {SLIDING}, but sliding_window is missing")
    if FULL not in layer_types and local_base is None:
        return {"window_size": window}
    return {
        "window_size": window,
        "window_attn_skip_freq": tuple(int(name == SLIDING) for name in layer_types),
        "local_rotary_base": local_base,
    }


class LayerRope(NamedTuple):
    """Rotary positions of the two types of layers."""

    full: dict[str, Any]
    """Of the layers without a window, as an entry of `rope_parameters`."""
    local_base: float | None
    """Rotary base of the layers with a window if they have no scaling, else None for the same."""


def read_rope(parameters: Any, default_base: float) -> LayerRope:
    """Return the rotary positions of `rope_parameters` with an entry for each layer type.

    Args:
        parameters: the field of config.json.
        default_base: `rope_theta` of an entry that has none.

    Raises:
        ValueError: an entry is missing, or the layers with a window have a scaling of their own.
    """
    if not isinstance(parameters, dict) or not isinstance(parameters.get(FULL), dict):
        raise ValueError(f"rope_parameters = {parameters!r} is not supported: it lacks {FULL}")
    if unknown := sorted(set(parameters) - {SLIDING, FULL}):
        raise ValueError(f"rope_parameters: {unknown[0]!r} is not supported")
    full = _rope_entry(parameters[FULL], default_base)
    local = _rope_entry(parameters.get(SLIDING) or {}, default_base)
    if set(local) == {"rope_type", "rope_theta"} and local["rope_type"] == "default":
        return LayerRope(full, float(local["rope_theta"]))
    if local == full:
        return LayerRope(full, None)
    raise ValueError(
        f"rope_parameters: {SLIDING} = {local!r} is not supported (only that of {FULL}, or a"
        " rope_theta without scaling)"
    )


def _rope_entry(entry: Mapping[str, Any], default_base: float) -> dict[str, Any]:
    """Return an entry of `rope_parameters` with its defaults and the name of transformers 5."""
    complete = {"rope_type": "default", "rope_theta": default_base, **entry}
    if "type" in complete:
        complete["rope_type"] = complete.pop("type")
    return complete


def with_layer_rope(config: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Return a config.json whose rotary positions are in `rope_parameters`, by layer type."""
    changed = dict(config)
    scaling = changed.pop("rope_scaling") or {"rope_type": "default"}
    full = {"rope_theta": changed.pop("rope_theta"), **scaling}
    local = full
    if architecture.local_rotary_base is not None:
        local = {"rope_type": "default", "rope_theta": architecture.local_rotary_base}
    return changed | {"rope_parameters": {FULL: full, SLIDING: local}}
