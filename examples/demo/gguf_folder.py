"""Conversion of a Llama GGUF file to a Hugging Face folder (safetensors, config, tokenizer)."""

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import pre_tokenizers

from galen import manifest
from galen.atomic import atomic_folder

# Fields of the loaded configuration that describe the GGUF file, not the model.
_GGUF_FIELDS = (
    "quantization_config",
    "_name_or_path",
    "_model_name_or_path",
    "transformers_version",
    "architectures",
)


def gguf_to_hf(gguf: Path, output: Path) -> None:
    """De-quantize `gguf` to float32; save model, tokenizer and manifest to the new `output`."""
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, trust_remote_code=False
    )
    _restore_digits(tokenizer, gguf)
    options = {"gguf_file": gguf.name, "dtype": torch.float32, "trust_remote_code": False}
    # a bar of the tensors, which no option hides
    with contextlib.redirect_stderr(io.StringIO()):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, **options)
    fields = {
        name: value for name, value in loaded.config.to_dict().items() if name not in _GGUF_FIELDS
    }
    # 1e-05, stored as 9.999999747378752e-06
    fields["rms_norm_eps"] = float(str(np.float32(fields["rms_norm_eps"])))
    # A model loaded from GGUF counts as quantized and refuses to be saved, so its weights move to a
    # plain one.
    plain = transformers.AutoModelForCausalLM.from_config(
        type(loaded.config)(**fields), dtype=torch.float32
    )
    plain.load_state_dict(loaded.state_dict())
    with atomic_folder(output) as folder:
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        manifest.write(
            folder / manifest.NAME,
            stage="gguf_to_hf",
            inputs=[gguf],
            config={"dtype": "float32"},
            outputs=sorted(folder.iterdir()),
            counts={"parameters": plain.num_parameters()},
        )


def _restore_digits(tokenizer: transformers.PreTrainedTokenizerBase, gguf: Path) -> None:
    """Split digits one by one before the byte-level pattern, as SmolLM does.

    GGUF stores only the name of that rule, and the conversion loses it.
    """
    import gguf as gguf_format

    field = gguf_format.GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level]
        )
