"""Models and tokenizers of Hugging Face folders, loaded by installed libraries' code only.

A folder may name Python files of its own (`auto_map`), kernels of a hub, or pickled weights. None
of these is run, and nobody is asked whether to: where `transformers` knows the model's class it is
loaded by that class, else it is refused.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from galen import json_file
from galen.errors import DataError, MissingInputError, as_data_error, one_line

PLACEHOLDER_TOKENS = frozenset({"<image_soft_token>"})
"""Tokens that stand for an image's embeddings.

A text model's tokenizer may have them without a row in the embedding (Gemma 3 1B, MedGemma 27B).
"""
_OWN_FOLDERS = ("models", "runs", "data")
"""Where recipes keep what is local: no names of owners on a hub."""
_WEIGHTS_PER_BYTE = 16
"""More than any way to store them gives: 1 bit each would be 8."""


def reading(path: str | Path) -> AbstractContextManager[None]:
    """Report what a library raises over a file or folder in one line.

    Some raise no more than `Exception`.
    """
    return as_data_error(
        lambda error: f"{path} cannot be loaded: {_reason(Path(path), error)}", (Exception,)
    )


def check_folder(folder: str | Path) -> None:
    """Check that a model folder exists.

    Raises:
        MissingInputError: it does not; says how to get it where the name is one of the hub's, or
            that of a folder for models.
    """
    folder = Path(folder)
    if folder.is_dir():
        return
    if folder.is_file():
        raise MissingInputError(
            f"{folder} is a file; models are folders with safetensors weights and a tokenizer"
        )
    hint = ""
    if folder.parent.name == "models":
        hint = f"; download it into that folder: hf download OWNER/NAME --local-dir {folder}"
    elif (
        len(folder.parts) == 2
        and folder.parts[0] not in _OWN_FOLDERS
        and not folder.parent.exists()
    ):
        hint = f"; models are local folders: hf download {folder} --local-dir DIR"
    raise MissingInputError(f"there is no model folder {folder}{hint}")


def load_tokenizer(folder: str | Path) -> Any:
    """Return the tokenizer of a folder.

    Raises:
        DataError: `transformers` cannot load it with its own code.
    """
    from transformers import AutoTokenizer

    with reading(folder):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_model(auto_class: Any, folder: str | Path, **options: Any) -> Any:
    """Return what `auto_class.from_pretrained`, of a class such as AutoModelForCausalLM, gives.

    Raises:
        DataError: `transformers` cannot load it with its own code.
    """
    config = json_file.read_object(Path(folder) / "config.json")
    # transformers would load the model that it names instead, from a hub even
    if (Path(folder) / "adapter_config.json").exists():
        raise DataError(
            f"{folder} holds a model and an adapter (adapter_config.json), which names another"
            " model; give each its folder"
        )
    _check_kernels(Path(folder), config)
    _check_size(Path(folder), config)
    with reading(folder):
        return auto_class.from_pretrained(folder, trust_remote_code=False, **options)


def _check_kernels(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that asks for a kernel of a hub: it would be fetched and run."""
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if "/" in str(config.get(key, "")):
            raise DataError(
                f"{folder / 'config.json'}: {key} = {config[key]!r} names code of a hub, which is"
                " not run; remove it"
            )


def _check_size(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration far larger than the files.

    `transformers` would fill the memory with weights that the files lack.
    """
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    layers, hidden, inner, vocabulary = (_number(config.get(name)) for name in names)
    asked = hidden * (vocabulary + layers * max(inner, 1)) + layers
    stored = sum(
        path.stat().st_size
        for pattern in ("*.safetensors", "*.bin")
        for path in folder.glob(pattern)
    )
    if asked > _WEIGHTS_PER_BYTE * stored:
        raise DataError(
            f"{folder / 'config.json'} describes a model of at least {asked:.2g} weights, the files"
            f" beside it have {stored:,} bytes: it is damaged, or another model's"
        )


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _reason(folder: Path, error: BaseException) -> str:
    """Return why a library refused, in one line."""
    if "trust_remote_code" not in str(error):
        return one_line(error) if str(error) else type(error).__name__
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in json_file.read_object(folder / name):
            return (
                f"{name} names Python code of the folder (auto_map), which is never run, and"
                " transformers has no class for it"
            )
    return "it needs Python code that does not belong to transformers, which is never run"
