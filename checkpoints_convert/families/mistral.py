"""Mistral v0.1 (sliding window) to v0.3, BioMistral and others of `model_type: mistral`."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama
from megatron_ext.config.architecture import Architecture


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Mistral config.json.

    The default window is 4,096, as in transformers.
    """
    fields = hf_config.Fields(config)
    window = fields.pop("sliding_window", 4096)
    return hf_config.architecture(fields, "mistral", num_query_groups=8, window_size=window)


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Mistral config.json."""
    return hf_config.config(
        architecture, "mistral", ["MistralForCausalLM"], sliding_window=architecture.window_size
    )


FAMILY = dataclasses.replace(llama.FAMILY, name="mistral", architecture=architecture, config=config)
