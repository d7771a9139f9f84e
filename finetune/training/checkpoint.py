"""Training state on disk as safetensors and JSON: without pickle, so that reading runs no code."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from finetune.parallel import processes
from galen import random_states
from galen.atomic import remove
from galen.errors import MALFORMED, as_data_error, one_line

TRAINER_STATE = "trainer_state.json"
"""The last file of a checkpoint that is written."""
TRAINING_STATE = "training_state"
"""Name of optimizer, schedule and a validation that is due."""
FSDP_WEIGHTS = "fsdp_model"
"""Name of the weights that were gathered from the processes of FSDP."""
_WEIGHTS = (
    "adapter_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    f"{FSDP_WEIGHTS}.safetensors",
)


def write(folder: Path, name: str, state: Any) -> None:
    """Write a tree of tensors and plain values as NAME.safetensors and NAME.json.

    The tree may have dicts, lists and tuples of tensors, numbers, strings, booleans and None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    tree = _to_json(state, tensors)
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(tree), encoding="utf-8")


def read(folder: Path, name: str) -> Any:
    """Return what `write` wrote; use it inside `reading`."""
    tensors = load_file(folder / f"{name}.safetensors")
    return _from_json(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), tensors)


def load_weights(model: Any, folder: Path) -> None:
    """Load weights that `save_pretrained` wrote, of the adapter or else the model.

    Use it inside `reading`.
    """
    if (folder / "adapter_model.safetensors").is_file():
        model.load_adapter(str(folder), "default", is_trainable=True)
        return
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        weights |= load_file(path)
    mismatch = model.load_state_dict(weights, strict=False)
    missing = set(mismatch.missing_keys) - set(model.all_tied_weights_keys)
    if missing or mismatch.unexpected_keys:
        names = sorted([*missing, *mismatch.unexpected_keys])
        raise ValueError(f"weights are missing or unknown: {', '.join(names[:3])}")


def _to_json(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    match value:
        case torch.Tensor():
            key = str(len(tensors))
            # tied weights share memory
            tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": key}
        case dict():  # in pairs: keys of an optimizer are integers, those of JSON strings
            return {"dict": [[key, _to_json(item, tensors)] for key, item in value.items()]}
        case tuple():
            return {"tuple": [_to_json(item, tensors) for item in value]}
        case list():
            return [_to_json(item, tensors) for item in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a checkpoint holds no {type(value).__name__}")


def _from_json(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    match value:
        case {"tensor": key}:
            return tensors[key]
        case {"dict": pairs}:
            return {key: _from_json(item, tensors) for key, item in pairs}
        case {"tuple": items}:
            return tuple(_from_json(item, tensors) for item in items)
        case list():
            return [_from_json(item, tensors) for item in value]
    return value


def random_state() -> dict[str, Any]:
    """Return this process' random state: Python, NumPy, PyTorch on CPU and GPU."""
    state = random_states.get()
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set what `random_state` returned."""
    random_states.restore(state)
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def reading(folder: str | Path) -> AbstractContextManager[None]:
    """Report whatever is raised inside the block as a damaged checkpoint."""
    return as_data_error(
        lambda error: (
            f"the checkpoint {folder} is damaged ({one_line(error)}); remove that folder, and the"
            " same command resumes from the previous one"
        ),
        (*MALFORMED, OSError, RuntimeError, AssertionError, SafetensorError),
    )


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint was written completely.

    Raises:
        DataError: it was, and is damaged.
    """
    try:
        content = (folder / TRAINER_STATE).read_bytes()
    except OSError:
        return False
    with reading(folder):
        try:
            # not json_file: its log may hold a loss that is not a number
            state = json.loads(content)
        except ValueError:
            if content.endswith(b"}\n"):
                raise
            return False  # truncated by a kill
        TrainerState.load_from_json(str(folder / TRAINER_STATE))
        if state["global_step"] != step_of(folder):
            raise ValueError(f"{TRAINER_STATE} is of step {state['global_step']}")
        if not any((folder / name).is_file() for name in _WEIGHTS):
            raise ValueError(f"it has none of {', '.join(_WEIGHTS)}")
    return True


def step_of(folder: Path) -> int:
    """Return the number of steps after which a checkpoint was written."""
    return int(folder.name.removeprefix("checkpoint-"))


def last_complete(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; the first process removes incomplete ones.

    Raises:
        DataError: one is damaged.
    """
    complete: list[Path] = []
    incomplete: list[Path] = []
    for path in folder.glob("checkpoint-*"):
        if path.name.removeprefix("checkpoint-").isdecimal():
            (complete if is_complete(path) else incomplete).append(path)
    if processes.is_first():
        for path in incomplete:
            remove(path)
    return max(complete, key=step_of, default=None)
