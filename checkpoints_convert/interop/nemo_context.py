"""Writes the `context/` of a NeMo 2 folder.

It holds the model's configuration in the two formats that NeMo reads, and the tokenizer.

`io.json` is a tree of calls in the JSON format of the library fiddle, from which NeMo builds the
model; `model.yaml` is the same as plain YAML.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from checkpoints_convert.hf.folder import copy_companions
from checkpoints_convert.interop import nemo_config
from galen.atomic import write_text
from megatron_ext.config.architecture import Architecture

_TOKENIZER = "nemo.collections.common.tokenizers.huggingface.auto_tokenizer.AutoTokenizer"
_CONTEXT = "nemo.lightning.io.pl.TrainerContext"


@dataclass(frozen=True)
class Symbol:
    """A class or value that NeMo imports by its name."""

    name: str

    @property
    def parts(self) -> tuple[str, str]:
        """Its module and its name in it."""
        module, _, name = self.name.rpartition(".")
        return module, name


@dataclass(frozen=True)
class Call:
    """A class and the arguments that it is made with."""

    target: Symbol
    arguments: dict[str, Any] = field(default_factory=dict)


def write(
    folder: Path, architecture: Architecture, dtype: torch.dtype, tokenizer: Path | None
) -> list[Path]:
    """Write the context of a model into `folder` and return the files.

    Raises:
        DataError: NeMo has no such model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [] if tokenizer is None else copy_companions(tokenizer, folder / nemo_config.TOKENIZER)
    model = _model(architecture, dtype, tokenizer is not None)
    write_text(
        folder / "io.json",
        json.dumps(
            fiddle_json(Call(Symbol(_CONTEXT), {"model": model, "trainer": None, "extra": {}}))
        ),
    )
    write_text(folder / "model.yaml", yaml.safe_dump(_plain(model)))
    return [*files, folder / "io.json", folder / "model.yaml"]


def _model(architecture: Architecture, dtype: torch.dtype, with_tokenizer: bool) -> Call:
    module, model, _ = nemo_config.MODELS[architecture.family]
    name, made = nemo_config.arguments(architecture)
    made["activation_func"] = Symbol(architecture.core_arguments()["activation_func"])
    precision = {
        "params_dtype": Symbol(str(dtype)),
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
    }
    parts: dict[str, Any] = {
        "config": Call(Symbol(f"{nemo_config.MODULE}.{module}.{name}"), {**made, **precision})
    }
    if with_tokenizer:
        parts["tokenizer"] = Call(
            Symbol(_TOKENIZER), {"pretrained_model_name": nemo_config.TOKENIZER}
        )
    return Call(Symbol(f"{nemo_config.MODULE}.{module}.{model}"), parts)


def _plain(value: Any) -> Any:
    """Return a tree of calls as NeMo's `model.yaml` has it."""
    if isinstance(value, Call):
        return {
            "_target_": value.target.name,
            **{name: _plain(argument) for name, argument in value.arguments.items()},
        }
    return {"_target_": value.name, "_call_": False} if isinstance(value, Symbol) else value


def fiddle_json(root: Call) -> dict[str, Any]:
    """Return a tree of calls in fiddle's JSON format (version 0.0.1).

    Each call is an object with the path that leads to it.
    """
    objects: dict[str, Any] = {}
    root_node = _encode(root, "<root>", objects)
    return {
        "root": root_node,
        "objects": objects,
        "refcounts": dict.fromkeys(objects, 1),
        "version": "0.0.1",
    }


def _encode(value: Any, path: str, objects: dict[str, Any]) -> dict[str, Any]:
    if isinstance(value, Symbol):
        return {**_reference(value), "paths": [path]}
    if isinstance(value, Call):
        items = [
            [f"Attr(name={name!r})", _encode(part, f"{path}.{name}", objects)]
            for name, part in value.arguments.items()
        ]
        described = {
            "fn_or_cls": _reference(value.target),
            "argument_names": _sequence("tuple", [*value.arguments]),
            "argument_tags": _sequence("dict", []),
            "argument_history": _sequence("dict", []),
        }
        metadata_type = _reference(Symbol("fiddle._src.config.BuildableTraverserMetadata"))
        metadata = {
            "type": metadata_type,
            "items": [[f"Attr(name={name!r})", part] for name, part in described.items()],
            "metadata": metadata_type,
        }
        key = f"{value.target.parts[1].lower()}_1"
        objects[key] = {
            "type": _reference(Symbol("fiddle._src.config.Config")),
            "items": items,
            "metadata": metadata,
            "paths": [path],
        }
        return {"type": "ref", "key": key}
    if isinstance(value, list):
        return {
            **_sequence(
                "list", [_encode(part, f"{path}[{n}]", objects) for n, part in enumerate(value)]
            ),
            "paths": [path],
        }
    if isinstance(value, dict):
        assert not value, "only an empty dict is needed"
        return {**_sequence("dict", []), "paths": [path]}
    return {"type": "leaf", "value": value, "paths": [path]}


def _reference(symbol: Symbol) -> dict[str, str]:
    module, name = symbol.parts
    return {"type": "pyref", "module": module, "name": name}


def _sequence(type_name: str, items: list[Any]) -> dict[str, Any]:
    """Return a tuple, list or empty dict; the metadata of a dict are its keys."""
    metadata = _sequence("tuple", []) if type_name == "dict" else None
    return {
        "type": _reference(Symbol(f"builtins.{type_name}")),
        "items": [[f"Index(index={n})", item] for n, item in enumerate(items)],
        "metadata": metadata,
    }
