"""The architecture of a Llama-like model, independent of Hugging Face and of Megatron's options.

A checkpoint carries it as `architecture.json`; recipes never repeat it.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from galen import json_file, shipped
from galen.atomic import write_text
from galen.errors import DataError, one_line
from galen.recipe import STRICT
from megatron_ext.checkpoint import checkpoint_folder

if TYPE_CHECKING:
    from megatron.core.transformer import TransformerConfig

ARCHITECTURE_FILE = "architecture.json"
VOCAB_MULTIPLE = 128  # Megatron-LM's --make-vocab-size-divisible-by


_MOST = 2**31 - 1
_MOST_LAYERS = 10_000
"""More than any model has; a damaged number would fill the memory with tensor names."""


@dataclass(kw_only=True, frozen=True, config=STRICT)
class Architecture:
    """A decoder with RMSNorm, rotary positions, grouped-query attention and a gated SiLU MLP.

    The names are Megatron's.
    """

    family: str
    """Model family in checkpoints_convert, for example llama."""
    num_layers: int = Field(gt=0, le=_MOST_LAYERS)
    hidden_size: int = Field(gt=0, le=_MOST)
    ffn_hidden_size: int = Field(gt=0, le=_MOST)
    num_attention_heads: int = Field(gt=0, le=_MOST)
    num_query_groups: int = Field(gt=0, le=_MOST)
    """Key/value heads."""
    kv_channels: int = Field(gt=0, le=_MOST)
    """Size of one head."""
    vocab_size: int = Field(gt=0, le=_MOST)
    """Rows of the embedding that belong to a token, padding not counted."""
    max_position_embeddings: int = Field(gt=0, le=_MOST)
    rotary_base: float = Field(gt=0, allow_inf_nan=False)
    rope_scaling_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Factor of Llama 3's rotary scaling, None for none."""
    layernorm_epsilon: float = Field(ge=0, lt=1)
    share_embeddings_and_output_weights: bool
    add_qkv_bias: bool = False
    """Whether query, key and value have a bias (Qwen2)."""
    qk_layernorm: bool = False
    """Whether query and key pass an RMSNorm over each head (Qwen3)."""
    window_size: int | None = Field(default=None, gt=0, le=_MOST)
    """Tokens that a token attends to, itself included (Mistral's sliding window); None for all."""

    def padded_vocab_size(self, tensor_parallel: int = 1) -> int:
        """Return the rows of the embedding under `tensor_parallel` ranks.

        They are a multiple of 128 x ranks, as in Megatron-LM.
        """
        multiple = VOCAB_MULTIPLE * tensor_parallel
        return -(-self.vocab_size // multiple) * multiple

    @property
    def query_size(self) -> int:
        """Columns of all query heads."""
        return self.num_attention_heads * self.kv_channels

    @property
    def key_value_size(self) -> int:
        """Columns of all key heads, and as many of all value heads."""
        return self.num_query_groups * self.kv_channels

    @property
    def layer_matrix_parameters(self) -> int:
        """Weights of a layer's matrices, which tensor parallelism divides."""
        attention = self.hidden_size * (2 * self.query_size + 2 * self.key_value_size)
        mlp = 3 * self.hidden_size * self.ffn_hidden_size
        return attention + mlp

    @property
    def layer_bias_parameters(self) -> int:
        """Biases of a layer, which tensor parallelism divides like the matrices."""
        return self.query_size + 2 * self.key_value_size if self.add_qkv_bias else 0

    @property
    def layer_norm_parameters(self) -> int:
        """Weights of a layer's norms, which every tensor-parallel rank holds."""
        return 2 * self.hidden_size + (2 * self.kv_channels if self.qk_layernorm else 0)

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once, padding not counted."""
        layer = self.layer_matrix_parameters + self.layer_bias_parameters
        layer += self.layer_norm_parameters
        embeddings = self.vocab_size * self.hidden_size
        if not self.share_embeddings_and_output_weights:
            embeddings *= 2
        return self.num_layers * layer + embeddings + self.hidden_size

    def attention_flops_per_token(self, seq_length: int) -> int:
        """Return a layer's FLOPs of causal attention for one token, forward and backward.

        6 x heads x head size x sequence (Narayanan et al. 2021, arXiv 2104.04473, halved because
        half of the scores are masked).
        """
        return 6 * self.query_size * seq_length

    def flops_per_token(self, seq_length: int) -> float:
        """Return model FLOPs for one token, forward and backward, attention included.

        6 per weight of the matrix products (2 forward, 4 backward; Kaplan et al. 2020, arXiv
        2001.08361) plus attention. The embedding look-up is no product; the output layer is.
        """
        multiplied = self.parameters
        if not self.share_embeddings_and_output_weights:
            multiplied -= self.vocab_size * self.hidden_size
        attention = self.num_layers * self.attention_flops_per_token(seq_length)
        return 6.0 * multiplied + attention

    def transformer_config(self, **options: Any) -> "TransformerConfig":
        """Return Megatron's configuration of this model.

        `options` are further TransformerConfig fields.
        """
        import torch
        from megatron.core.transformer import TransformerConfig

        return TransformerConfig(
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            ffn_hidden_size=self.ffn_hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_query_groups=self.num_query_groups,
            kv_channels=self.kv_channels,
            layernorm_epsilon=self.layernorm_epsilon,
            normalization="RMSNorm",
            gated_linear_unit=True,
            activation_func=torch.nn.functional.silu,
            add_bias_linear=False,
            add_qkv_bias=self.add_qkv_bias,
            qk_layernorm=self.qk_layernorm,
            window_size=None if self.window_size is None else (self.window_size - 1, 0),
            # the core's default of 0.1 would inflate the loss of a continued model
            hidden_dropout=0.0,
            attention_dropout=0.0,
            **options,
        )

    def write(self, folder: str | Path) -> None:
        """Write `architecture.json` into `folder`."""
        write_text(
            Path(folder) / ARCHITECTURE_FILE, json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        )


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
            f"cannot read {file}: there is none; `galen import` writes it beside the weights"
        )
    fields = json_file.read_object(file)
    try:
        return TypeAdapter(Architecture).validate_python(fields)
    except ValueError as error:
        raise DataError(f"{file} does not describe a model: {one_line(error)}") from None


def architecture_from_model(checkpoint: str | Path, json_path: str | Path | None) -> Architecture:
    """Return a recipe's architecture: its checkpoint's, or before there is one, its file's.

    Args:
        checkpoint: `model.checkpoint` of a recipe; it need not exist if `json_path` is given.
        json_path: `model.architecture` of a recipe.

    Raises:
        DataError: neither can be read, or the two differ.
    """
    if json_path is not None and checkpoint_folder.latest_iteration(checkpoint) is None:
        return read_architecture(json_path)
    architecture = read_architecture(checkpoint_folder.newest(checkpoint))
    if json_path is not None:
        _check_same(architecture, checkpoint, read_architecture(json_path), json_path)
    return architecture


def _check_same(
    actual: Architecture, checkpoint: str | Path, expected: Architecture, json_path: str | Path
) -> None:
    differences = []
    for field in dataclasses.fields(Architecture):
        in_checkpoint = getattr(actual, field.name)
        in_file = getattr(expected, field.name)
        if in_checkpoint != in_file:
            differences.append(
                f"{field.name}: {in_checkpoint} in the checkpoint, {in_file} described"
            )
    if differences:
        raise DataError(
            f"{checkpoint} is not the model that model.architecture = {json_path} describes"
            f" ({'; '.join(differences)})"
        )
