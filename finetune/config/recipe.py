"""The fine-tuning recipe: every key of RECIPE.yaml, its default and its meaning."""

import dataclasses
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(kw_only=True, config=STRICT)
class Model:
    """What is trained."""

    path: str
    """Hugging Face model folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights that are loaded; LoRA's own weights are always float32."""
    quantization: Literal["4bit", "8bit"] | None = None
    """QLoRA: frozen linear layers in 4 bit (NF4, double quantization) or 8 bit (LLM.int8).

    Stored by bitsandbytes.
    """
    add_tokens: list[str] = dataclasses.field(default_factory=list)
    """Tokens to add to the vocabulary where it lacks them.

    Their embedding rows are trained too, in full and with LoRA.
    """
    verify_checksums: bool = True
    """Compare the folder with the SHA-256 in its manifest.json before training.

    Applies where a command of Galen wrote one.
    """


@dataclass(kw_only=True, config=STRICT)
class Source:
    """A published question set, where it is more than a JSONL file."""

    set: str = "galen"
    """Its layout, a name of evaluation/question_sets."""
    source: str
    """File, folder, or hub:OWNER/NAME[:CONFIGURATION]:SPLIT."""
    templates: list[str] | None = None
    """Prompt templates, a sample for each question and template; null: data.protocol."""
    ids: str | None = None
    """File of the ids to include (JSON list or object)."""
    exclude_ids: str | None = None
    """File of the ids to exclude, as PubMedQA's test ids."""
    subjects: list[str] | None = None
    """Subjects to include."""


Sources = str | list[str | Source]


@dataclass(kw_only=True, config=STRICT)
class Data:
    """What it is trained on."""

    train: Sources
    """JSONL files, or published sets as {set, source, templates, ids, exclude_ids, subjects}.

    Records of JSONL: questions, {"prompt", "completion"}, {"messages": [{"role", "content"}]},
    {"instruction", "input", "output"}, or {"question", "answer"}; see docs/finetune.md.
    """
    validation: Sources | None = None
    """The same for validation."""
    validation_fraction: Fraction = 0.0
    """Fraction of the training records held out for validation, by a hash of their ids.

    Instead of validation files.
    """
    decontaminate_against: list[str | Source] = dataclasses.field(default_factory=list)
    """Test sets; training records that hold their questions are excluded.

    By data_prep/'s decontamination.
    """
    protocol: str = "lm_eval"
    """Prompt template of questions, see docs/evaluation/protocols.md."""
    chat_template: str | None = None
    """Template for conversations, written into the tokenizer.

    A name from finetune/data/chat_templates/ or a .jinja file; null: its own.
    """
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest sample in tokens.

    In longer ones a context is truncated at its end, a prompt at its beginning, and the oldest
    messages are dropped.
    """
    packing: bool = False
    """Pack several samples into one row of at most max_length tokens; none attends to another."""

    @model_validator(mode="after")
    def _one_validation(self) -> Self:
        if self.validation is not None and self.validation_fraction > 0:
            raise ValueError("give validation files or validation_fraction, not both")
        return self


@dataclass(kw_only=True, config=STRICT)
class Lora:
    """Low-rank adapter (Hu et al., arXiv 2106.09685)."""

    r: Count = 16
    """Rank."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """The adapter's output is scaled by alpha / r."""
    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Names of the linear layers with an adapter, or "all-linear": all but the output layer."""
    target_parameters: list[str] = Field(default_factory=list)
    """Names of weights outside linear layers with an adapter: the stacked experts of a layer.

    For example [experts.gate_up_proj, experts.down_proj]; each expert has its own adapter of rank
    r. It takes no dropout.
    """
    merge: bool = False
    """Also write RUN/model, the unquantized model with the adapter merged into its weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.target_parameters and self.dropout:
            raise ValueError("target_parameters take no dropout; set dropout: 0")
        return self


@dataclass(kw_only=True, config=STRICT)
class Optimizer:
    """AdamW and its schedule; names as in pretraining, Megatron's."""

    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate at the end of a cosine or linear decay."""
    lr_decay_style: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warmup: cosine or linear decay to min_lr, or constant."""
    lr_warmup_fraction: Fraction = 0.03
    """Fraction of the steps, rounded up, in which the learning rate rises linearly from 0.

    The first warmup step has learning rate 0.
    """
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    clip_grad: Annotated[float, Field(gt=0)] = 1.0
    """Maximum gradient norm; larger gradients are clipped."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_lr and self.lr_decay_style == "constant":
            raise ValueError(
                "min_lr has no effect with lr_decay_style: constant; remove it, or choose cosine or"
                " linear"
            )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr ({self.min_lr}) is above lr ({self.lr})")
        return self


@dataclass(kw_only=True, config=STRICT)
class Training:
    """Length, batches and validation; the loss is the answer tokens' mean over a global batch."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training samples. Give this or train_iters."""
    train_iters: Count | None = None
    """Optimizer steps of the run."""
    micro_batch_size: Count = 8
    """Samples (rows, with data.packing) in one forward pass of one process."""
    gradient_accumulation_steps: Count = 1
    """Micro-batches of each process in one optimizer step."""
    bf16: bool = False
    """Compute in bfloat16; weights (model.dtype: float32) and optimizer keep their precision.

    For training all weights on GPUs.
    """
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    fsdp: bool = False
    """Shard weights, gradients and optimizer over the processes (FSDP2) instead of DDP."""
    seed: int = 1234
    """Seed of the adapter's initialization, the order of samples, and dropout."""
    save_interval: Count = 100
    """Steps between checkpoints; the last two remain."""
    eval_interval: Count = 100
    """Steps between validations; one more comes before the first step and after the last."""
    metric_for_best_model: Literal["accuracy", "loss"] | None = None
    """Keep the weights of the best validation instead of the last.

    By accuracy on the questions, or by loss; needs save_interval equal to eval_interval.
    """
    early_stopping_patience: Count | None = None
    """Stop after so many validations without improvement; needs metric_for_best_model."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.epochs is None) == (self.train_iters is None):
            raise ValueError("give either epochs or train_iters")
        if self.metric_for_best_model is None:
            if self.early_stopping_patience is not None:
                raise ValueError(
                    "early_stopping_patience needs metric_for_best_model: accuracy or loss"
                )
        elif self.save_interval != self.eval_interval:
            raise ValueError(
                f"with metric_for_best_model, save_interval ({self.save_interval}) must be"
                f" eval_interval ({self.eval_interval}): only saved weights can be chosen"
            )
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
    optimizer: Optimizer
    """AdamW and its schedule."""
    training: Training
    """Length, batches and validation."""
    output: str
    """Run folder: log.jsonl, checkpoints/, and adapter/ (or model/ without LoRA) at the end."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.quantization is not None and self.lora is None:
            raise ValueError(
                "model.quantization needs lora: quantized weights cannot be trained themselves"
            )
        if (
            self.training.metric_for_best_model is not None
            and self.data.validation is None
            and not self.data.validation_fraction
        ):
            raise ValueError(
                "training.metric_for_best_model needs data.validation or data.validation_fraction"
            )
        return self
