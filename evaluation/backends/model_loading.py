"""Loading of a model, its tokenizer and its adapter; missing weights are an error."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from galen import json_file, pretrained
from galen.errors import DataError, one_line


def load_model(folder: str | Path, **options: Any) -> tuple[Any, Any]:
    """Return model and tokenizer of a folder.

    `transformers` initializes missing weights, or those of another shape, randomly, and ignores
    those of further layers; here both are errors.

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
        **_stored_precision(folder),
    }
    model, report = pretrained.load_model(AutoModelForCausalLM, folder, **options)
    mismatched = [name for name, *_ in report["mismatched_keys"]]
    missing = sorted([*report["missing_keys"], *mismatched])
    if missing:
        raise DataError(
            f"{folder} cannot be loaded: its files lack {len(missing):,} of the weights of its"
            f" config.json, or have them in another shape, for example {missing[0]}; copy the"
            " complete folder again"
        )
    if surplus := _surplus_layers(model, report["unexpected_keys"]):
        raise DataError(
            f"{folder} cannot be loaded: its files have weights of more layers than its"
            f" config.json, for example {surplus[0]}; copy the complete folder again"
        )
    _leave_unpacked(model)
    return model, tokenizer


def _stored_precision(folder: str | Path) -> dict[str, Any]:
    """Return the precision of a model that bitsandbytes has quantized, as an option; {} for others.

    In another one, transformers loads only a part of the weights that are not quantized.
    """
    config = json_file.read_object(Path(folder) / "config.json")
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != "bitsandbytes":
        return {}
    return {"dtype": "auto"}


def _surplus_layers(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the unexpected weights of layers beyond the model's last one.

    `transformers` ignores these.
    """
    num_layers = model.config.get_text_config().num_hidden_layers
    surplus = []
    for name in unexpected:
        layer = re.search(r"\.(?:layers|h)\.(\d+)\.", name)
        if layer and int(layer[1]) >= num_layers:
            surplus.append(name)
    return sorted(surplus)


def _leave_unpacked(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit layers for this CPU where it fails with their widths."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu") and (
            module.in_features % 64 or module.out_features % 32
        ):
            module.support_avx512bf16_for_cpu = False


def with_adapter(model: Any, tokenizer: Any, adapter: Path) -> tuple[Any, Any]:
    """Return the model with a PEFT adapter on it, and the tokenizer that belongs to both.

    An adapter that was trained with new tokens has its own tokenizer and their embeddings.

    Raises:
        DataError: the adapter cannot be loaded, or belongs to another model.
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
            # peft's own entries for mixtures of experts
            warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
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
