"""Rotary positions of a model, and their change for training at a longer context.

The names of the options are Megatron's (`rotary_base`) and Hugging Face's (`rope_scaling`).
"""

import dataclasses
import math
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT

LLAMA3_SCALING = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Constants of Llama 3's rotary scaling in Megatron Core; only the factor can be chosen."""

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

YARN_OPTIONS = ("beta_fast", "beta_slow", "attention_factor", "truncate")
"""Options that only YaRN has."""


@dataclass(kw_only=True, frozen=True, config=STRICT)
class Yarn:
    """YaRN rotary scaling (Peng et al. 2023, arXiv 2309.00071), in Hugging Face's names."""

    factor: float = Field(gt=1, allow_inf_nan=False)
    original_max_position_embeddings: int = Field(gt=0)
    beta_fast: float = Field(default=32.0, gt=0, allow_inf_nan=False)
    beta_slow: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    attention_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of the rotated queries and keys; None for the paper's, 0.1 ln(factor) + 1."""
    truncate: bool = True
    """Whether the range of interpolated dimensions is rounded to integers."""

    @property
    def default_attention_factor(self) -> float:
        """The attention factor that the paper recommends for the factor."""
        return 0.1 * math.log(self.factor) + 1.0

    @property
    def scales_attention(self) -> bool:
        """Whether queries and keys are multiplied by anything but 1."""
        return self.attention_factor != 1.0

    def core_attributes(self) -> dict[str, Any]:
        """Return the attributes of TransformerConfig that Megatron's GPTModel reads.

        Megatron multiplies by (0.1 mscale ln(factor) + 1) / (0.1 mscale_all_dim ln(factor) + 1).
        """
        mscale = None
        mscale_all_dim = None
        if self.attention_factor is not None:
            mscale = (self.attention_factor - 1.0) / (self.default_attention_factor - 1.0)
            mscale_all_dim = 0.0
        return {
            "yarn_rotary_scaling_factor": self.factor,
            "yarn_original_max_position_embeddings": self.original_max_position_embeddings,
            "yarn_beta_fast": self.beta_fast,
            "yarn_beta_slow": self.beta_slow,
            "yarn_mscale": mscale,
            "yarn_mscale_all_dim": mscale_all_dim,
            "yarn_correction_range_round_to_int": self.truncate,
        }


@dataclass(kw_only=True, frozen=True, config=STRICT)
class LongRope:
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753), in Hugging Face's names."""

    short_factor: tuple[PositiveFloat, ...]
    """Divisors of the frequencies for sequences of up to the original positions."""
    long_factor: tuple[PositiveFloat, ...]
    """Divisors for longer sequences, which Megatron's model does not take."""
    original_max_position_embeddings: int = Field(gt=1)
    attention_factor: PositiveFloat
    """Of the rotated queries and keys, at any length."""

    @property
    def scales_attention(self) -> bool:
        """Whether queries and keys are multiplied by anything but 1."""
        return self.attention_factor != 1.0

    @staticmethod
    def default_attention_factor(factor: float, original: int) -> float:
        """Return the attention factor of the paper for a factor of the context length."""
        return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0

    def core_attributes(self) -> dict[str, Any]:
        """Return the attributes of TransformerConfig from which attention takes its factor.

        They are YaRN's: Megatron multiplies by 0.1 mscale ln(factor) + 1.
        """
        return {
            "yarn_rotary_scaling_factor": math.e,
            "yarn_mscale": 10.0 * (self.attention_factor - 1.0),
            "yarn_mscale_all_dim": 0.0,
        }


@dataclass(kw_only=True, config=STRICT)
class RopeScaling:
    """Rotary scaling, in Hugging Face's names."""

    rope_type: Literal["default", "llama3", "yarn"]
    """Llama 3's scaling (llama3), YaRN (yarn) or none (default).

    A model that comes with linear scaling (Gemma 3) keeps it unless this replaces it; dynamic and
    longrope are not in Megatron Core.
    """
    factor: float | None = Field(default=None, gt=1, allow_inf_nan=False)
    """Factor of the context length (llama3, yarn)."""
    original_max_position_embeddings: int | None = Field(default=None, gt=0)
    """Positions before the scaling: those of the checkpoint by default (yarn), or 8192 (llama3)."""
    beta_fast: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Rotations over the original positions above which a frequency is kept; 32 (yarn)."""
    beta_slow: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Rotations below which a frequency is divided by the factor; 1 (yarn)."""
    attention_factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Multiplies rotated queries and keys; 0.1 ln(factor) + 1 (yarn)."""
    truncate: bool | None = None
    """Round the range of interpolated dimensions to integers; true (yarn)."""

    def __post_init__(self) -> None:
        """Check the options against the type."""
        if self.rope_type == "default":
            if surplus := [name for name in self._names() if name != "rope_type"]:
                raise ValueError(f"{surplus[0]} has no effect with rope_type: default")
            return
        if self.factor is None:
            raise ValueError(f"factor is required for rope_type: {self.rope_type}")
        if self.rope_type == "llama3":
            if surplus := [name for name in YARN_OPTIONS if name in self._names()]:
                raise ValueError(f"{surplus[0]} needs rope_type: yarn")
            original = LLAMA3_SCALING["original_max_position_embeddings"]
            if self.original_max_position_embeddings not in (None, original):
                raise ValueError(
                    "original_max_position_embeddings ="
                    f" {self.original_max_position_embeddings} is not supported by Megatron Core"
                    f" for rope_type: llama3 (only {original}); use rope_type: yarn, or change"
                    f" model.rope.rotary_base"
                )

    def _names(self) -> list[str]:
        """Return the options that are set."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name) is not None]


@dataclass(kw_only=True, config=STRICT)
class Rope:
    """Rotary positions that replace the checkpoint's, to train at a longer context."""

    rotary_base: float | None = Field(default=None, gt=1, allow_inf_nan=False)
    """Base of the rotary frequencies (Hugging Face: rope_theta)."""
    rope_scaling: RopeScaling | None = None
    """Rotary scaling; rope_type: default removes the checkpoint's."""
    max_position_embeddings: int | None = Field(default=None, gt=0)
    """Positions of the model.

    By default factor x original_max_position_embeddings (yarn), or the checkpoint's.
    """
