"""Transformer Engine's FP8 histories (`_extra_state`).

They are read without its unpickler, and pickled again for it.
"""

import pickle
from typing import Any

from galen.errors import DataError
from megatron_ext.checkpoint import pickle_values, safe_pickle
from megatron_ext.checkpoint.pickle_stand_ins import Inert

_RECIPE = "transformer_engine.common.recipe"
_FIELDS = ("margin", "amax_history_len", "amax_compute_algo", "reduce_amax", "fp8_dpa", "fp8_mha")
"""The recipe's plain fields; any other keeps Transformer Engine's own value."""


def repickle(data: bytes, source: str) -> bytes:
    """Return a pickle of ours with the content of a stored history.

    It holds scales, histories, plain values and the FP8 recipe.

    Raises:
        DataError: it is damaged, or holds something else.
    """
    content = safe_pickle.read_bytes(data, source)
    if content is None:
        return pickle.dumps(None)
    if type(content) is not dict:
        raise DataError(
            f"{source} is damaged: it holds a {type(content).__name__}, which is not a history of"
            " FP8"
        )
    recipe = content.pop("recipe", None)
    values = pickle_values.real(content, source)
    return pickle.dumps(values if recipe is None else {**values, "recipe": _recipe(recipe, source)})


def _recipe(stored: Any, source: str) -> Any:
    """Return Transformer Engine's delayed-scaling recipe, made of the stored one's plain fields."""
    if type(stored) is not Inert or stored.known.name != f"{_RECIPE}.DelayedScaling":
        raise DataError(f"{source} holds a recipe of FP8 that has no history: {stored!r}")
    from transformer_engine.common import recipe

    fields = stored.state or {}
    plain = {
        name: fields[name] for name in _FIELDS if type(fields.get(name)) in (int, float, bool, str)
    }
    return recipe.DelayedScaling(**plain, fp8_format=_format(fields.get("fp8_format"), recipe))


def _format(stored: Any, recipe: Any) -> Any:
    """Return the FP8 format by its name, or by its largest values, which pickles have instead."""
    stored_name = stored.arguments[0] if type(stored) is Inert and stored.arguments else "HYBRID"
    largest = stored_name.arguments if type(stored_name) is Inert else stored_name
    return next(
        (known for known in recipe.Format if largest in (known.name, tuple(known.value))),
        recipe.Format.HYBRID,
    )
