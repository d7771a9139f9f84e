"""A model family: how its configuration and its tensors correspond to Megatron's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from checkpoints_convert.families.mappings import ParamMapping
from megatron_ext.config.architecture import Architecture


@dataclass(frozen=True)
class Family:
    """One family, declared in its own file under `families/`."""

    name: str
    """`model_type` of the Hugging Face configuration."""
    architecture: Callable[[dict[str, Any]], Architecture]
    """Reads a config.json.

    Raises ValueError naming a field that changes the function and is not supported.
    """
    config: Callable[[Architecture], dict[str, Any]]
    """Writes the fields of a config.json that `architecture` reads."""
    shared: Sequence[ParamMapping]
    """Tensors that exist once."""
    output: ParamMapping
    """The output layer, absent where it is tied to the embedding."""
    layer: Sequence[ParamMapping]
    """Tensors of each layer, and of each expert in it."""
    reference: str = "transformers"
    """The code that computes the original's logits for verify.py.

    Either transformers, or a module with `logits(folder, tokens, dtype)`.
    """

    def mappings(self, architecture: Architecture) -> list[ParamMapping]:
        """Return the mappings of the tensors that exist once, for this model."""
        return (
            [*self.shared]
            if architecture.share_embeddings_and_output_weights
            else [*self.shared, self.output]
        )
