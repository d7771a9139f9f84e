"""The architecture of a Llama-like model, independent of Hugging Face and of Megatron's options.

A checkpoint carries it as `architecture.json`; recipes never repeat it.
"""

import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from galen import json_file, shipped
from galen.atomic import write_text
from galen.errors import DataError, UsageError, one_line
from galen.recipe import STRICT
from megatron_ext.config.activations import ACTIVATIONS
from megatron_ext.config.architecture_sizes import ArchitectureSizes

if TYPE_CHECKING:
    from megatron.core.transformer import TransformerConfig

ARCHITECTURE_FILE = "architecture.json"


@dataclass(kw_only=True, frozen=True, config=STRICT)
class Architecture(ArchitectureSizes):
    """A decoder with RMSNorm, rotary positions and grouped-query attention.

    The fields are in `architecture_fields.py`. What a property changes is derived once: shapes and
    FLOPs in `architecture_sizes.py`, Megatron's arguments here. The planner and the interop formats
    read the derived attributes. An interop format refuses a model with a property that it does not
    declare (`conversion/interop_target.py`).
    """

    @property
    def max_seq_length(self) -> int | None:
        """Longest sequence for which Megatron's model is exact; None for any."""
        if self.longrope is not None:
            return self.longrope.original_max_position_embeddings
        if not self.llama_4_scaling_beta or self.yarn is None:
            return None
        return self.yarn.original_max_position_embeddings

    def check_seq_length(self, seq_length: int) -> None:
        """Check that Megatron's model is exact for sequences of this length.

        Raises:
            UsageError: it is not.
        """
        if self.max_seq_length is not None and seq_length > self.max_seq_length:
            reason = "scales queries by their position (llama_4_scaling_beta)"
            if self.longrope is not None:
                reason = "has other rotary frequencies (longrope)"
            raise UsageError(
                f"sequences of {seq_length} tokens are not supported for this {self.family} model:"
                f" beyond {self.max_seq_length} tokens it {reason}, unlike Megatron's; use at most"
                f" {self.max_seq_length} (data.seq_length)"
            )

    def without_idle_window(self, seq_length: int) -> "Architecture":
        """Return the same model without a sliding window that no sequence exceeds.

        Attention without a window has faster kernels, and Transformer Engine's context parallelism
        takes no window. The layers that had it keep their own rotary base.
        """
        if self.window_size is None or seq_length > self.window_size:
            return self
        layers = None if self.local_rotary_base is None else self.window_attn_skip_freq
        return dataclasses.replace(self, window_size=None, window_attn_skip_freq=layers)

    def core_arguments(self) -> dict[str, Any]:
        """Return this model in the names of Megatron Core's TransformerConfig, as plain data.

        Training, Megatron-Bridge, NeMo and Megatron-LM take their arguments from here. The
        activation is a dotted name.
        """
        arguments = {
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "ffn_hidden_size": self.ffn_hidden_size,
            "num_attention_heads": self.num_attention_heads,
            "num_query_groups": self.num_query_groups,
            "kv_channels": self.kv_channels,
            "layernorm_epsilon": self.layernorm_epsilon,
            "normalization": "RMSNorm",
            "layernorm_zero_centered_gamma": self.layernorm_zero_centered_gamma,
            "softmax_scale": self.softmax_scale,
            "gated_linear_unit": self.gated_mlp,
            "activation_func": ACTIVATIONS[self.activation].function,
            "glu_linear_offset": self.glu_linear_offset,
            "activation_func_clamp_value": self.activation_func_clamp_value,
            "add_bias_linear": self.add_bias_linear,
            "add_qkv_bias": self.add_qkv_bias,
            "softmax_type": self.softmax_type,
            "qk_layernorm": self.qk_layernorm,
            "window_size": None if self.window_size is None else (self.window_size - 1, 0),
            "window_attn_skip_freq": (
                None if self.window_attn_skip_freq is None else list(self.window_attn_skip_freq)
            ),
            # the core's default of 0.1 would inflate the loss of a continued model
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
        }
        if self.is_moe:
            arguments |= {
                "num_moe_experts": self.num_moe_experts,
                "moe_router_topk": self.moe_router_topk,
                "moe_ffn_hidden_size": self.moe_ffn_hidden_size,
                "moe_router_pre_softmax": self.moe_router_pre_softmax,
                "moe_shared_expert_intermediate_size": self.moe_shared_expert_intermediate_size,
                "moe_shared_expert_gate": self.moe_shared_expert_gate,
            }
        return arguments

    def transformer_config(self, **options: Any) -> "TransformerConfig":
        """Return Megatron's configuration of this model.

        `options` are further TransformerConfig fields.
        """
        from megatron.core.transformer import TransformerConfig

        arguments = self.core_arguments()
        fused = options.pop("bias_activation_fusion", False)
        fused_function = self._fused_function(options.get("moe_grouped_gemm", False))
        options["bias_activation_fusion"] = fused and fused_function is not None
        kernel = ACTIVATIONS[self.activation].kernel
        if fused and fused_function is not None:
            arguments["activation_func"] = fused_function
        elif kernel is not None:
            arguments["activation_func"] = kernel
        module, _, name = arguments["activation_func"].rpartition(".")
        function = getattr(importlib.import_module(module), name)
        # Megatron's functions are compiled, which the CPU platform cannot do
        arguments["activation_func"] = function if fused else inspect.unwrap(function)
        if not self.num_fusible_rope_layers:  # of some layers, their attention decides
            options["apply_rope_fusion"] = False
        config = TransformerConfig(**arguments, **options)
        # the core then builds a module for each MLP; it accepts the option only for functions of
        # Transformer Engine
        config.use_te_activation_func = isinstance(function, type)
        scaling = self.yarn or self.longrope
        if scaling is not None:
            for name, value in scaling.core_attributes().items():
                setattr(config, name, value)
        return config

    def _fused_function(self, moe_grouped_gemm: bool) -> str | None:
        """Return the function for which the core fuses activation and gate, None for none."""
        if not self.gated_mlp:
            return None
        if self.activation == "quick_gelu" and not moe_grouped_gemm:
            return None  # the core's kernel for other MLPs adds the bias after it clamps
        return ACTIVATIONS[self.activation].fused_function

    def to_json(self) -> dict[str, Any]:
        """Return the fields as `architecture.json` has them.

        Properties added after the first format are left out at their default, so that an older
        Galen still reads the file.
        """
        defaults = properties()
        later = defaults.keys() - _FIRST_PROPERTIES
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in later or value != defaults[name]
        }

    def write(self, folder: str | Path) -> None:
        """Write `architecture.json` into `folder`."""
        write_text(Path(folder) / ARCHITECTURE_FILE, json.dumps(self.to_json(), indent=1) + "\n")


def properties() -> dict[str, Any]:
    """Return the properties of a model by the fields of Architecture, with Llama's values."""
    parameters = inspect.signature(Architecture).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


_FIRST_PROPERTIES = frozenset(
    {"rope_scaling_factor", "add_qkv_bias", "qk_layernorm", "window_size"}
)
"""Those of the first format, which are written always."""


def read_architecture(path: str | Path) -> Architecture:
    """Read an architecture.

    Args:
        path: a JSON file, or the folder of a checkpoint's iteration.

    Raises:
        DataError: the file is missing or does not describe a model.
    """
    is_file = str(path).endswith(".json")
    file = shipped.resolve(path) if is_file else Path(path) / ARCHITECTURE_FILE
    if not file.exists():
        raise DataError(
            f"cannot read {file}: it does not exist; `galen import` writes it beside the weights"
        )
    fields = json_file.read_object(file)
    try:
        return TypeAdapter(Architecture).validate_python(fields)
    except ValueError as error:
        raise DataError(f"{file} does not describe a model: {one_line(error)}") from None
