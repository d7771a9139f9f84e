"""A model, its tokenizer and its adapter from Hugging Face folders, complete or not at all."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from galen import pretrained
from galen.errors import DataError, one_line


def load_model(folder: str | Path, **options: Any) -> tuple[Any, Any]:
    """Return model and tokenizer of a folder.

    `transformers` fills weights that the files lack, or have in another shape, with random numbers,
    and leaves those of further layers out; here both are errors.

    Args:
        folder: a Hugging Face folder.
        options: of `AutoModelForCausalLM.from_pretrained`.

    Raises:
        DataError: `transformers` cannot load it, or weights are missing.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = pretrained.load_tokenizer(folder)
    options = {
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
        "use_safetensors": True,
        **options,
    }
    model, found = pretrained.load_model(AutoModelForCausalLM, folder, **options)
    lacking = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if lacking:
        raise DataError(
            f"{folder} cannot be loaded: its files lack {len(lacking):,} of the weights that its"
            f" config.json asks for, or have them in another shape, for example {lacking[0]}; copy"
            " the whole folder again"
        )
    if surplus := _surplus_layers(model, found["unexpected_keys"]):
        raise DataError(
            f"{folder} cannot be loaded: its files have weights of layers that its config.json does"
            f" not ask for, for example {surplus[0]}; copy the whole folder again"
        )
    _leave_unpacked(model)
    return model, tokenizer


def _surplus_layers(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the unexpected weights of layers beyond the model's last one.

    `transformers` leaves these out.
    """
    layers = model.config.get_text_config().num_hidden_layers
    places = {name: re.search(r"\.(?:layers|h)\.(\d+)\.", name) for name in unexpected}
    return sorted(name for name, place in places.items() if place and int(place[1]) >= layers)


def _leave_unpacked(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit layers for this CPU where it fails with their widths."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu") and (
            module.in_features % 64 or module.out_features % 32
        ):
            module.support_avx512bf16_for_cpu = False


def with_adapter(model: Any, tokenizer: Any, adapter: Path) -> tuple[Any, Any]:
    """Return the model with a PEFT adapter on it, and the tokenizer that belongs to both.

    An adapter that was trained with new tokens brings its tokenizer and their rows.

    Raises:
        DataError: the adapter cannot be loaded, or was made for another model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if (adapter / "tokenizer.json").is_file():
        tokenizer = pretrained.load_tokenizer(adapter)
    try:
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, adapter), tokenizer
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
        UserWarning,
    ) as error:
        raise DataError(
            f"{adapter} cannot be loaded on {model.name_or_path}: {one_line(error)}"
        ) from error
