"""The properties of a model that other programs' formats express; refuses all others.

A target declares the properties that its format expresses, and those that it refuses. A property
that it does not declare must have its default, so that a new one is refused by every target; a test
fails until each target declares it (`tests/checkpoints_convert/conversion/test_interop_target.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from galen.errors import DataError
from megatron_ext.config.activations import ACTIVATIONS
from megatron_ext.config.architecture import Architecture, properties

Supports = Callable[[Architecture], bool]


def always(architecture: Architecture) -> bool:
    """Return true: the target expresses every value of a property."""
    return True


def is_function(architecture: Architecture) -> bool:
    """Return whether the activation is a function of Megatron Core's, not a module of Galen's."""
    return ACTIVATIONS[architecture.activation].parameters == 0


@dataclass(frozen=True)
class InteropTarget:
    """A program whose checkpoints or configurations are written."""

    name: str
    """In messages."""
    supports: Mapping[str, Supports]
    """By property of Architecture: whether the format expresses this model's value."""
    refuses: frozenset[str] = frozenset()
    """Properties of which the format expresses the default only."""

    def refusal(self, architecture: Architecture) -> str | None:
        """Return which properties of a model the format cannot express, or None."""
        unsupported = [
            f"{name} = {getattr(architecture, name)!r}"
            for name, default in properties().items()
            if getattr(architecture, name) != default
            and not self.supports.get(name, never)(architecture)
        ]
        if not unsupported:
            return None
        return (
            f"{self.name} cannot express {', '.join(unsupported)} of this {architecture.family}"
            " model"
        )

    def check(self, architecture: Architecture) -> None:
        """Refuse a model that the format cannot express.

        Raises:
            DataError: names the target and the properties.
        """
        if refusal := self.refusal(architecture):
            raise DataError(refusal)


def never(architecture: Architecture) -> bool:
    """Return false: the target expresses the default of a property only."""
    return False
