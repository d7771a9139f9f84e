"""The fine-tuning recipe: every key of RECIPE.yaml, its default and its meaning."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(kw_only=True, config=STRICT)
class Model:
    """What is trained."""

    path: str
    """Hugging Face model folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights that are loaded; LoRA's own weights are always float32."""


@dataclass(kw_only=True, config=STRICT)
class Data:
    """What it is trained on."""

    train: str | list[str]
    """File or files of multiple-choice questions (JSONL)."""
    validation: str | list[str] | None = None
    """The same for validation."""
    validation_share: Share = 0.0
    """Without validation files: share of the training questions kept for validation, chosen by a hash of their ids."""
    protocol: str = "lm_eval"
    """Prompt form, one of evaluation/prompts.py."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest sample in tokens; the context of longer ones is cut at its end."""

    @model_validator(mode="after")
    def _one_validation(self) -> Self:
        if self.validation is not None and self.validation_share > 0:
            raise ValueError("give validation files or validation_share, not both")
        return self


@dataclass(kw_only=True, config=STRICT)
class Lora:
    """Low-rank adapter (Hu et al., arXiv 2106.09685)."""

    r: Count = 16
    """Rank."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """The adapter's part is scaled by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the linear layers that get an adapter, or "all-linear": all but the output layer."""


@dataclass(kw_only=True, config=STRICT)
class Training:
    """How it is trained: AdamW on the answer tokens' mean loss over the whole accumulated batch."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warm-up: to 0 along a cosine or a line, or constant."""
    warmup_ratio: Share = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training questions. Give this or max_steps."""
    max_steps: Count | None = None
    """Number of optimizer steps."""
    micro_batch_size: Count = 8
    """Samples computed at once."""
    gradient_accumulation: Count = 1
    """Micro-batches in one optimizer step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    seed: int = 1234
    """Seed of the adapter's initialisation, the order of samples, and dropout."""
    save_interval: Count = 100
    """Steps between checkpoints; the last two are kept."""
    validation_interval: Count = 100
    """Steps between validations; there is one before the first step and one after the last."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either epochs or max_steps")
        return self


@dataclass(kw_only=True, config=STRICT)
class Recipe:
    """Supervised fine-tuning of one model."""

    model: Model
    """What is trained."""
    data: Data
    """What it is trained on."""
    lora: Lora | None = Field(default_factory=Lora)
    """Low-rank adapter; null trains all weights."""
    training: Training
    """How it is trained."""
    output: str
    """Run folder: log.jsonl, checkpoints/, and adapter/ (or model/ without LoRA) at the end."""
