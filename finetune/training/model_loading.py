"""Loads the model to train, with new tokens, and with an adapter or all weights trainable."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.backends.model_loading import load_model, with_adapter
from finetune.config.recipe import Lora, Model
from finetune.data import chat
from galen import json_file
from galen.errors import UsageError, install

logger = logging.getLogger(__name__)


def load(model_recipe: Model) -> tuple[Any, Any]:
    """Return model and tokenizer of a Hugging Face folder, quantized if the recipe says so.

    Raises:
        DataError: `transformers` cannot load it.
        UsageError: quantization is asked for and its package is missing.
    """
    dtype = getattr(torch, model_recipe.dtype)
    options = decoded(Path(model_recipe.path), model_recipe.quantization)
    if model_recipe.quantization is not None:
        options["quantization_config"] = bitsandbytes_config(model_recipe.quantization, dtype)
        if torch.cuda.is_available():
            options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    model, tokenizer = load_model(model_recipe.path, dtype=dtype, **options)
    for module in model.modules():
        # otherwise a validation would re-pack and round the 4-bit weights during training
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model, tokenizer


def decoded(folder: Path, quantization: str | None) -> dict[str, Any]:
    """Return the option that decodes MXFP4 (gpt-oss), which cannot be trained; {} for others.

    Raises:
        UsageError: `model.quantization` asks for another quantization of such a model.
    """
    path = folder / "config.json"
    config = json_file.read_object(path) if path.is_file() else {}
    stored = config.get("quantization_config")
    if not isinstance(stored, dict) or stored.get("quant_method") != "mxfp4":
        return {}
    if quantization is not None:
        raise UsageError(
            f"model.quantization: {quantization} needs weights that are not quantized, those of"
            f" {folder} are MXFP4; write them in bf16 with `galen import` and `galen export`"
        )
    from transformers import Mxfp4Config

    logger.info(f"{folder}: MXFP4 is decoded")
    return {"quantization_config": Mxfp4Config(dequantize=True)}


def bitsandbytes_config(bits: str, dtype: torch.dtype) -> Any:
    """Return the quantization of QLoRA for "4bit", of LLM.int8 for "8bit".

    Dettmers et al., arXiv 2305.14314 and 2208.07339.

    Raises:
        UsageError: the package is missing.
    """
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise UsageError(f"model.quantization needs bitsandbytes: {install('qlora')}") from None
    if bits == "8bit":
        warnings.filterwarnings("ignore", message="MatMul8bitLt")
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def add_tokens(model: Any, tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Add the tokens that the vocabulary lacks; return their ids.

    New rows begin as the mean of all others. The embedding only grows where it has no rows to
    spare: many models are padded.
    """
    known = tokenizer.get_vocab()
    new = [token for token in dict.fromkeys(tokens) if token not in known]
    if not new:
        return []
    before = len(tokenizer)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": new}, replace_extra_special_tokens=False
    )
    ids = tokenizer.convert_tokens_to_ids(new)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[ids] = layer.weight[:before].float().mean(0).to(layer.weight.dtype)
    return ids


def add_lora(
    model: Any, lora: Lora, new_tokens: Sequence[int] = (), checkpointing: bool = False
) -> Any:
    """Return the model with a new adapter, which starts as no change.

    Only the adapter's weights, and the rows of new tokens, are trained.

    Raises:
        UsageError: a target module does not exist or cannot have an adapter.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    _check_targets(model, lora)
    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    elif checkpointing:
        model.enable_input_require_grads()
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_target_modules(model, lora),
        target_parameters=lora.target_parameters or None,
        trainable_token_indices=(
            {name: list(new_tokens) for name in _vocabulary_layers(model)} if new_tokens else None
        ),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft's own entries for mixtures of experts
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
        adapted = get_peft_model(model, config)
    _sort_sets(adapted)
    for name, parameter in adapted.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data = parameter.data.float()  # as the adapter's other weights
    return adapted


def _target_modules(model: Any, lora: Lora) -> str | list[str]:
    """Return the layers that get an adapter.

    Of some mixtures of experts, peft's own all-linear also includes the router and the experts.
    """
    if lora.target_modules != "all-linear" or not _stacked_experts(model):
        return lora.target_modules
    output = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    }
    return sorted(names)


def _check_targets(model: Any, lora: Lora) -> None:
    """Check that the layers and weights that get an adapter exist and can have one.

    Raises:
        UsageError: names one that cannot.
    """
    if experts := _stacked_experts(model):
        missing = [name for name in lora.target_parameters if name not in experts]
        if missing:
            raise UsageError(
                f"lora.target_parameters: this model has no stacked experts {missing[0]!r}; it has"
                f" {', '.join(experts)}"
            )
        if not lora.target_parameters:
            logger.info(
                f"the experts have no adapter; lora.target_parameters=[{','.join(experts)}] gives"
                " them one"
            )
    elif lora.target_parameters:
        raise UsageError("lora.target_parameters: this model has no stacked experts; remove it")
    if lora.target_modules == "all-linear":
        return
    modules = dict(model.named_modules())
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in modules.items()
        if isinstance(module, torch.nn.Linear)
    }
    unknown = [name for name in lora.target_modules if name not in linear]
    if unknown:
        raise UsageError(
            f"lora.target_modules: this model has no linear layer {unknown[0]!r}; it has"
            f" {', '.join(sorted(linear))}"
        )
    output = next(
        name for name, module in modules.items() if module is model.get_output_embeddings()
    )
    if output in lora.target_modules and len(_vocabulary_layers(model)) == 1:
        raise UsageError(
            f"lora.target_modules: {output} shares its weights with the embedding here, so that"
            " no adapter can be merged into it"
        )


def _stacked_experts(model: Any) -> list[str]:
    """Return the names of weights that stack the experts of a layer, without the layer's name."""
    names = {
        ".".join(name.split(".")[-2:])
        for name, weight in model.named_parameters()
        if weight.dim() == 3
    }
    return sorted(names, reverse=True)


def _sort_sets(adapted: Any) -> None:
    """Sort the sets in the adapter's configuration, which peft writes in an order by process."""
    for config in adapted.peft_config.values():
        for name, value in vars(config).items():
            if isinstance(value, set):
                setattr(config, name, sorted(value))


def _vocabulary_layers(model: Any) -> list[str]:
    """Return the names of the embedding and of an output layer with weights of its own."""
    layers = [model.get_input_embeddings()]
    if model.get_output_embeddings().weight is not layers[0].weight:
        layers.append(model.get_output_embeddings())
    return [
        name for name, module in model.named_modules() if any(module is layer for layer in layers)
    ]


def trainable(model: torch.nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def save(model: Any, tokenizer: Any, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Save the adapter, or else the model, and the tokenizer to a folder.

    `weights`: the model's, where they were gathered already.
    """
    from peft import PeftModel

    options: dict[str, Any] = (
        {"save_embedding_layers": False} if isinstance(model, PeftModel) else {}
    )
    if weights is not None:  # gathered, tied weights are copies, which would be stored twice
        weights = {
            name: weight
            for name, weight in weights.items()
            if name not in model.all_tied_weights_keys
        }
    model.config.use_cache = True  # the Trainer has switched it off
    model.save_pretrained(folder, state_dict=weights, **options)
    tokenizer.save_pretrained(folder)
    # peft's, with paths of this machine; finetune/export.py writes the card
    (folder / "README.md").unlink(missing_ok=True)


def merge(model_recipe: Model, adapter: Path, folder: Path, generation_config: Any) -> None:
    """Merge an adapter into its unquantized base model and save it.

    It generates as the model in training would.

    Raises:
        DataError: they do not belong together.
    """
    model, tokenizer = with_adapter(
        *load_model(model_recipe.path, dtype=getattr(torch, model_recipe.dtype)), adapter
    )
    merged = model.merge_and_unload(safe_merge=True)
    merged.generation_config = generation_config
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def set_end_of_answer(model: Any, tokenizer: Any) -> None:
    """Let generation stop at the mark that ends an answer of the tokenizer's chat template, too."""
    end = chat.end_of_answer(tokenizer)
    existing = model.generation_config.eos_token_id
    if existing is None:
        existing = []
    ids = existing if isinstance(existing, list) else [existing]
    model.generation_config.eos_token_id = ids if end in ids else [*ids, end]
