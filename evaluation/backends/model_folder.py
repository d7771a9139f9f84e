"""Hugging Face model and adapter folders: checks and hashes, without torch."""

import logging
from pathlib import Path

from galen import checksums, json_file, manifest, pretrained
from galen.errors import DataError, MissingInputError

# peft imports bitsandbytes where it is installed, which then asks for a package that fetches
# kernels from a hub
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

DTYPES = ("float32", "bfloat16", "float16")
"""Precisions that a model can be loaded in."""


def check_model(folder: str | Path) -> Path:
    """Return the folder when it holds a model with a tokenizer that `transformers` can load.

    Raises:
        MissingInputError: there is no such folder.
        DataError: a file of the model is missing.
    """
    folder = Path(folder)
    pretrained.check_folder(folder)
    if not (folder / "config.json").is_file():
        raise DataError(
            f"{folder} is not a Hugging Face model: it has no config.json{_actual_content(folder)}"
        )
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        # transformers ignores a damaged one
        if (folder / name).is_file():
            json_file.read_object(folder / name)
    if not list(folder.glob("*.safetensors")):
        raise DataError(f"{folder} has no weights (*.safetensors)")
    if not any(
        (folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise DataError(
            f"{folder} has no tokenizer (tokenizer.json); copy it from the model that this one was"
            " made from"
        )
    return folder


def _actual_content(folder: Path) -> str:
    """Return a remark on the content of a folder that is not a model, if known."""
    if (folder / "adapter_config.json").is_file():
        return " (it is a PEFT adapter: pass it as --adapter, and its base model as --model)"
    if (folder / "latest_checkpointed_iteration.txt").is_file():
        return " (it is a Megatron checkpoint: `galen export` exports it)"
    if (folder / "checkpoints" / "latest_checkpointed_iteration.txt").is_file():
        return f" (it is a pretraining run: `galen export` exports {folder / 'checkpoints'})"
    for name in ("model", "adapter"):
        if (folder / name).is_dir():
            return f" (it is a fine-tuning run: its result is {folder / name})"
    return ""


def check_adapter(folder: str | Path) -> Path:
    """Return the folder when it holds a PEFT adapter.

    Raises:
        MissingInputError: there is no such folder.
        DataError: it is not an adapter.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingInputError(f"there is no adapter folder {folder}")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(f"{folder} is not a PEFT adapter: it has no {name}")
    config = json_file.read_object(folder / "adapter_config.json")
    if config.get("megatron_config"):
        raise DataError(
            f"{folder / 'adapter_config.json'}: megatron_config, which names a module to import, is"
            " unsupported"
        )
    # others load further folders, tokenizers with code of their own among them
    if config.get("peft_type") != "LORA":
        raise DataError(
            f"{folder / 'adapter_config.json'}: peft_type = {str(config.get('peft_type'))[:100]!r}"
            " is unsupported, only LORA is"
        )
    return folder


def context_length(folder: Path) -> int | None:
    """Return the model's maximum context length in tokens, or None where the config has none."""
    config = json_file.read_object(folder / "config.json")
    length = config.get("max_position_embeddings") or config.get("n_positions")
    if length is not None and not isinstance(length, int):
        raise DataError(
            f"{folder / 'config.json'}: max_position_embeddings = {length!r} is not an integer"
        )
    return length or None


def hashes(folder: Path, verify: bool = True) -> dict[str, str]:
    """Return the SHA-256 of each file that decides the answers: weights, configurations, tokenizer.

    Args:
        folder: of a model or an adapter.
        verify: compare them with the folder's manifest, if Galen wrote one; else log that they are
            not compared.

    Raises:
        DataError: a file was changed after it was written.
    """
    weights = (
        "*.safetensors",
        "*.safetensors.index.json",
        "config.json",
        "adapter_config.json",
        "generation_config.json",
    )
    text = (
        "tokenizer*",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.*",
        "additional_chat_templates/*.jinja",
    )
    files: set[Path] = set()
    for pattern in (*weights, *text):
        files.update(path for path in folder.glob(pattern) if path.is_file())
    digests = {path: manifest.sha256(path) for path in sorted(files)}
    if verify:
        checksums.check(manifest.recorded(folder), digests)
    elif manifest.recorded(folder):
        checksums.log_skipped(folder)
    return {path.name: digest for path, digest in digests.items()}
