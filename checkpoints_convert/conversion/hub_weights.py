"""Opens the weights of a Hugging Face folder under the names that the family maps."""

from pathlib import Path

from checkpoints_convert.families.base import Family
from checkpoints_convert.hf.fused_experts import ExpertWeights
from checkpoints_convert.hf.weights import Weights


def open_weights(folder: str | Path, family: Family) -> Weights:
    """Return a folder's weights, of a multimodal folder those of the text model.

    Tensors of all experts of a layer appear expert by expert.

    Raises:
        DataError: the folder has no weights, or one is missing or damaged.
    """
    weights = ExpertWeights if family.fused_experts else Weights
    return weights(folder, family.text_tensor)
