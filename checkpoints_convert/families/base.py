"""A model family: how its configuration and its tensors correspond to Megatron's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from checkpoints_convert.families.mappings import ParamMapping
from checkpoints_convert.families.stacked_experts import StackedExperts
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
    fused_experts: bool = False
    """Whether the files have a layer's experts in one tensor (hf/fused_experts.py)."""
    stacked: Sequence[StackedExperts] = ()
    """Hub tensors of all experts of a layer, which a folder may have instead of single ones."""
    renamed: Sequence[tuple[str, str]] = ()
    """Other names of tensors that a folder may have, each with the name in `layer`."""
    reference: str = "transformers"
    """The code that computes the original's logits for verify.py.

    Either transformers, or a module with `logits(folder, tokens, dtype)`.
    """
    text_config: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Returns the text model's config.json from that of a multimodal folder.

    None for a text folder. Raises ValueError as `architecture` does.
    """
    text_tensor: Callable[[str], str | None] | None = None
    """Returns a text folder's name of a tensor in a multimodal folder; None if it has none."""

    def __post_init__(self) -> None:
        """Check that no tensor has two mappings.

        Raises:
            ValueError: names the tensor.
        """
        seen = set()
        for mapping in (*self.shared, self.output, *self.layer):
            for name in (mapping.megatron, *mapping.hf):
                if name in seen:
                    raise ValueError(f"the family {self.name} has two mappings of {name}")
                seen.add(name)

    def mappings(self, architecture: Architecture) -> list[ParamMapping]:
        """Return the mappings of the tensors that exist once, for this model."""
        return (
            [*self.shared]
            if architecture.share_embeddings_and_output_weights
            else [*self.shared, self.output]
        )
