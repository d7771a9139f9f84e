"""Describe a checkpoint.

Prints family, sizes, the layout it was saved from, step, vocabulary, precision and completeness.

    galen inspect-checkpoint runs/pretrain/checkpoints
    galen inspect-checkpoint models/SmolLM2-135M --json

Reads Megatron checkpoint folders (or one iteration of them), the old mp_rank_XX layout, NeMo 2 and
Hugging Face folders. Nothing of the checkpoint is run. Exit code 1 when it is not complete.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galen import cli, json_file
from galen.errors import DataError

if TYPE_CHECKING:
    from megatron_ext.config.architecture import Architecture


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("path", type=Path, metavar="PATH", help="checkpoint")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    description = describe(arguments.path)
    if arguments.json:
        print(json.dumps(description, indent=1, default=str))
    else:
        width = max(map(len, description))
        for name, value in description.items():
            print(
                f"{name:{width}}  {value:,}"
                if isinstance(value, int) and not isinstance(value, bool)
                else f"{name:{width}}  {value}"
            )
    return 0 if description["complete"] == "yes" else 1


def describe(path: Path) -> dict[str, Any]:
    """Return the description of a checkpoint.

    Raises:
        DataError: it is none, or has values that no checkpoint has.
    """
    from checkpoints_convert.interop import megatron_lm_legacy
    from megatron_ext.checkpoint import checkpoint_folder

    if megatron_lm_legacy.is_legacy(path):
        return megatron_lm_legacy.describe(path)
    if (path / ".metadata").is_file():
        return _megatron(path)
    if (path / checkpoint_folder.LATEST).is_file() or checkpoint_folder.iterations(path):
        return _megatron(checkpoint_folder.newest(path))
    if (path / "weights" / ".metadata").is_file():
        return _nemo(path)
    if (path / "config.json").is_file():
        return _hugging_face(path)
    raise DataError(
        f"{path} is not a checkpoint: it holds neither {checkpoint_folder.LATEST}, nor .metadata,"
        " nor weights/, nor config.json"
    )


def _nemo(path: Path) -> dict[str, Any]:
    from checkpoints_convert.hf.folder import tokenizer_ids
    from checkpoints_convert.interop import nemo_config

    ids = tokenizer_ids(path / nemo_config.CONTEXT / nemo_config.TOKENIZER)
    description = _megatron(
        path / nemo_config.WEIGHTS, nemo_config.PREFIX, nemo_config.read(path, ids)
    )
    return description | {"format": "NeMo 2 (import with `galen import-nemo`)", "folder": path}


def _megatron(
    folder: Path, prefix: str = "", architecture: "Architecture | None" = None
) -> dict[str, Any]:
    from checkpoints_convert.families.megatron_shapes import VOCAB_TENSORS
    from megatron_ext.checkpoint.pickle_values import shown
    from megatron_ext.checkpoint.torch_dist import LAYERS, TorchDist
    from megatron_ext.config.architecture import ARCHITECTURE_FILE, read_architecture

    source = TorchDist(folder, prefix)
    description: dict[str, Any] = {"format": "Megatron torch_dist", "folder": folder}
    common = source.common()
    arguments = vars(common["args"]) if isinstance(common.get("args"), argparse.Namespace) else None
    if (folder / ARCHITECTURE_FILE).is_file():
        architecture = read_architecture(folder)
    if architecture is not None:
        description |= _fields(architecture) | _parameters(architecture)
    elif arguments is not None:
        description |= {
            name: shown(value) for name, value in arguments.items() if name in _ARGUMENTS
        }
    weights = {name: value for name, value in source.tensors.items() if not _is_of_optimizer(name)}
    layers = Counter(name.startswith(LAYERS) for name in weights)
    description["tensors"] = len(weights)
    description.setdefault("parameters", sum(math.prod(value.size) for value in weights.values()))
    description["tensors stacked over layers"] = layers[True]
    rows = [value.size[0] for name, value in weights.items() if name in VOCAB_TENSORS]
    if rows:
        description["vocabulary rows, padded"] = rows[0]
    description["dtype"] = ", ".join(
        sorted({str(value.properties.dtype).removeprefix("torch.") for value in weights.values()})
    )
    description["optimizer state"] = _optimizer_state(source.tensors, common.get("optimizer"))
    if (folder / "training_state.json").is_file():
        description |= _training_state(folder / "training_state.json")
    elif arguments is not None:
        tensor = shown(arguments.get("tensor_model_parallel_size", "?"))
        pipeline = shown(arguments.get("pipeline_model_parallel_size", "?"))
        description["saved from"] = f"TP{tensor} x PP{pipeline}"
        description["iteration"] = shown(common.get("iteration"))
    from checkpoints_convert.conversion.validate import missing

    lacking = missing(source)
    return description | {"complete": "yes" if lacking is None else f"no: {lacking}"}


def _optimizer_state(names: Iterable[str], stored: Any) -> str:
    """Return the number of the optimizer's tensors and their format.

    Args:
        names: of all tensors.
        stored: the optimizer's entry of `common.pt`.
    """
    from megatron_ext.checkpoint.pickle_values import shown

    number = sum(map(_is_of_optimizer, names))
    if not number:
        return "none"
    if isinstance(stored, dict):
        stored = stored.get(0, stored)  # one of several optimizers
    sharding = stored.get("param_state_sharding_type") if isinstance(stored, dict) else None
    return f"{number} tensors, {shown(sharding or 'unknown format')}"


_ARGUMENTS = {
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "num_query_groups",
    "kv_channels",
    "rotary_base",
    "padded_vocab_size",
    "norm_epsilon",
    "max_position_embeddings",
    "iteration",
    "consumed_train_samples",
}


def _hugging_face(folder: Path) -> dict[str, Any]:
    from checkpoints_convert import families
    from checkpoints_convert.conversion.hub_weights import open_weights
    from checkpoints_convert.conversion.validate import check_complete
    from checkpoints_convert.hf.folder import check_vocabulary

    family, architecture = families.find(folder / "config.json")
    weights = open_weights(folder, family, architecture)
    description = {
        "format": "Hugging Face safetensors",
        "folder": folder,
        **_fields(architecture),
    }
    description |= _parameters(architecture)
    description |= {"tensors": len(weights.tensors), "files": len(weights.files)}
    description["dtype"] = ", ".join(
        sorted({str(one.dtype).removeprefix("torch.") for one in weights.tensors.values()})
    )
    try:
        check_complete(weights, family, architecture)
        check_vocabulary(folder, architecture.vocab_size)
    except DataError as error:
        return description | {"complete": f"no: {error}"}
    return description | {"complete": "yes"}


def _is_of_optimizer(name: str) -> bool:
    return name.startswith(("optimizer.", "chained_"))


def _fields(architecture: "Architecture") -> dict[str, Any]:
    """Return the fields of `architecture.json`, and the experts of a token at their default too."""
    fields = architecture.to_json()
    if architecture.is_moe:
        fields["moe_router_topk"] = architecture.moe_router_topk
    return fields


def _parameters(architecture: "Architecture") -> dict[str, int]:
    """Return the number of weights, and of those that a token passes in a mixture of experts."""
    sizes = {"parameters": architecture.parameters}
    if architecture.is_moe:
        sizes["active parameters"] = architecture.active_parameters
    return sizes


def _training_state(path: Path) -> dict[str, Any]:
    state = json_file.read_object(path)
    layout = state.get("layout")
    progress = state.get("progress")
    if not isinstance(layout, list) or len(layout) < 3 or not isinstance(progress, dict):
        raise DataError(f"{path} is not of a pretraining run: its layout or progress is missing")
    # losses are kept only where loss spikes are detected
    hidden = ("seconds",) if progress.get("recent_losses") else ("seconds", "recent_losses")
    description = {
        name.replace("_", " "): value for name, value in progress.items() if name not in hidden
    }
    sizes = "TP{} x PP{}, DP x CP = {}".format(*layout)
    if len(layout) == 5:
        sizes += ", EP{} x ETP{}".format(*layout[3:])
    return {"saved from": sizes, **description}


if __name__ == "__main__":
    cli.run(main)
