"""The fine-tuning recipe: every key of RECIPE.yaml, its default and its meaning."""

import dataclasses
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
    forms: list[str] | None = None
    """Prompt forms, a sample for each question and form; null: data.protocol."""
    ids: str | None = None
    """File of the ids to take (JSON list or object)."""
    not_ids: str | None = None
    """File of the ids to leave out, as PubMedQA's test ids."""
    subjects: list[str] | None = None
    """Subjects to take."""


Sources = str | list[str | Source]


@dataclass(kw_only=True, config=STRICT)
class Data:
    """What it is trained on."""

    train: Sources
    """JSONL files, or published sets as {set, source, forms, ids, not_ids, subjects}.

    Records of JSONL: questions, {"prompt", "completion"}, {"messages": [{"role", "content"}]},
    {"instruction", "input", "output"}, or {"question", "answer"}; see docs/finetune.md.
    """
    validation: Sources | None = None
    """The same for validation."""
    validation_fraction: Share = 0.0
    """Without validation files.

    Share of the training records kept for validation, chosen by a hash of their ids.
    """
    test_sets: list[str | Source] = dataclasses.field(default_factory=list)
    """What the model will be tested on.

    Training records that hold its questions (data_prep/'s decontamination) are left out.
    """
    protocol: str = "lm_eval"
    """Prompt form of questions, see docs/evaluation.md."""
    chat_template: str | None = None
    """Template for conversations, written into the tokenizer.

    A name from finetune/data/chat_templates/ or a .jinja file; null: its own.
    """
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest sample in tokens.

    Of longer ones a context is cut at its end, a prompt at its beginning, old messages go.
    """
    packing: bool = False
    """Put several samples into one row of at most max_length tokens, none seeing another."""

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
    """The adapter's part is scaled by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Names of the linear layers that get an adapter, or "all-linear": all but the output layer."""
    merge: bool = False
    """Also write RUN/model, the unquantized model with the adapter merged into its weights."""


@dataclass(kw_only=True, config=STRICT)
class Training:
    """How it is trained: AdamW on the answer tokens' mean loss over the whole accumulated batch."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warm-up.

    Along a cosine to final_learning_rate, along a line to 0, or constant.
    """
    final_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate at the end of a cosine."""
    warmup_ratio: Share = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training questions. Give this or max_steps."""
    max_steps: Count | None = None
    """Number of optimizer steps."""
    micro_batch_size: Count = 8
    """Samples (rows, with data.packing) computed at once by each process."""
    gradient_accumulation: Count = 1
    """Micro-batches of each process in one optimizer step."""
    bf16: bool = False
    """Compute in bfloat16 while weights (model.dtype: float32) and optimizer stay as they are.

    For training all weights on GPUs.
    """
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    fsdp: bool = False
    """Shard weights, gradients and optimizer over the processes (FSDP2), not copy them (DDP)."""
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
    select_best: Literal["accuracy", "loss"] | None = None
    """Keep the weights of the best validation instead of the last.

    By accuracy on the questions, or by loss. Checkpoints have
    to be as frequent as validations.
    """
    early_stopping: Count | None = None
    """Stop after so many validations without a better one; needs select_best."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either epochs or max_steps")
        if self.early_stopping is not None and self.select_best is None:
            raise ValueError("early_stopping needs select_best: accuracy or loss")
        if self.select_best is not None and self.save_interval != self.validation_interval:
            raise ValueError(
                f"with select_best, save_interval ({self.save_interval}) must be"
                f" validation_interval ({self.validation_interval}): only what is saved can be"
                " chosen"
            )
        if self.final_learning_rate and self.schedule != "cosine":
            raise ValueError("final_learning_rate goes with schedule: cosine")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate ({self.final_learning_rate}) is above learning_rate"
                f" ({self.learning_rate})"
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
    training: Training
    """How it is trained."""
    output: str
    """Run folder: log.jsonl, checkpoints/, and adapter/ (or model/ without LoRA) at the end."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model.quantization is not None and self.lora is None:
            raise ValueError(
                "model.quantization needs lora: quantised weights cannot be trained themselves"
            )
        if (
            self.training.select_best is not None
            and self.data.validation is None
            and not self.data.validation_fraction
        ):
            raise ValueError(
                "training.select_best needs data.validation or data.validation_fraction"
            )
        return self
