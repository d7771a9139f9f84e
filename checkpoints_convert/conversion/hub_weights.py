"""Opens the weights of a Hugging Face folder under the names that the family maps."""

from pathlib import Path

from checkpoints_convert.families.base import Family
from checkpoints_convert.hf.fused_experts import ExpertWeights
from checkpoints_convert.hf.weights import Weights
from galen.errors import DataError
from megatron_ext.checkpoint.stored_tensor import StoredTensor
from megatron_ext.config.architecture import Architecture


def open_weights(folder: str | Path, family: Family, architecture: Architecture) -> Weights:
    """Return a folder's weights; tensors of all experts of a layer appear expert by expert.

    Raises:
        DataError: the folder has no weights, or one is missing, damaged, or exists under both
            names.
    """
    open_folder = ExpertWeights if family.fused_experts else Weights
    weights = open_folder(folder, family.text_tensor)
    for layer in range(architecture.num_layers):
        for old, new in family.renamed:
            name = old.format(layer=layer)
            if name in weights.tensors:
                _replace(weights, name, {new.format(layer=layer): weights.tensors[name]})
        for stacked in family.stacked:
            name = stacked.name(layer)
            if name in weights.tensors:
                try:
                    views = stacked.views(weights.tensors[name], layer)
                except ValueError as error:
                    raise DataError(f"{folder}: {name}: {error}") from None
                _replace(weights, name, views)
    return weights


def _replace(weights: Weights, name: str, views: dict[str, StoredTensor]) -> None:
    stored = weights.tensors.pop(name)
    if duplicates := views.keys() & weights.tensors.keys():
        raise DataError(
            f"{stored.path.parent} holds both {name} and {min(duplicates)}, which are the same"
            " tensor; remove the files that are not the model's"
        )
    weights.tensors |= views
