"""The recipe of a pretraining run, and the checks that Megatron-LM makes and Megatron Core does not.

Names are Megatron-LM's, without the dashes.
"""

import dataclasses
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.errors import UsageError
from galen.recipe import STRICT
from megatron_ext.architecture import Architecture


@dataclass(kw_only=True, config=STRICT)
class Model:
    """Where the model comes from."""

    checkpoint: str
    """Megatron checkpoint folder to start from (its weights only), made by checkpoints_convert/hf_to_megatron.py."""
    architecture: str | None = None
    """JSON file that describes the model (the form of a checkpoint's architecture.json): for planning before the checkpoint is there."""


@dataclass(kw_only=True, config=STRICT)
class Parallel:
    """How the model is spread; what is left of the processes is data parallelism."""

    tensor_model_parallel_size: int = Field(default=1, ge=1)
    """Processes that share each layer."""
    pipeline_model_parallel_size: int = Field(default=1, ge=1)
    """Stages, each with its layers."""
    num_layers_in_first_pipeline_stage: int | None = Field(default=None, ge=1)
    """Layers of the first stage, where an even split would leave the stages unequally busy."""
    num_layers_in_last_pipeline_stage: int | None = Field(default=None, ge=1)
    """Layers of the last stage, which also computes the output layer and the loss."""
    sequence_parallel: bool = False
    """Split activations along the sequence between the tensor-parallel processes, outside the matrix products."""
    overlap_grad_reduce: bool = False
    """Reduce gradients while the backward pass goes on."""
    overlap_param_gather: bool = False
    """Gather updated weights while the forward pass goes on."""


@dataclass(kw_only=True, config=STRICT)
class Data:
    """What is read."""

    train: list[str]
    """Prefixes of .bin/.idx files (what preprocess.py wrote, without the ending)."""
    validation: list[str]
    """The same for validation."""
    seq_length: int = Field(default=2048, ge=1)
    """Tokens in a sequence."""
    eod_mask_loss: bool = False
    """Leave the prediction after an end-of-document token out of the loss."""
    num_workers: int = Field(default=2, ge=0)
    """Processes that read ahead, for each training process; 0 reads in the process itself."""


@dataclass(kw_only=True, config=STRICT)
class Training:
    """How long, how much at a time, how precisely."""

    train_iters: int = Field(ge=1)
    """Optimizer steps of the whole run."""
    micro_batch_size: int = Field(default=1, ge=1)
    """Sequences in one forward pass of one process."""
    global_batch_size: int = Field(ge=1)
    """Sequences in one optimizer step, over all processes."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of weights and activations; the optimizer keeps fp32 copies."""
    seed: int = 1234
    """Decides the order of the data and all random numbers."""
    eval_interval: int = Field(default=100, ge=1)
    """Steps between two validations; one more comes before the first step and after the last."""
    eval_iters: int = Field(default=10, ge=0)
    """Global batches in a validation, always the same ones; 0 for no validation."""
    save_interval: int = Field(default=1000, ge=1)
    """Steps between two checkpoints; one more comes after the last step."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept."""
    log_interval: int = Field(default=1, ge=1)
    """Steps between two lines."""
    recompute_granularity: Literal["selective", "full"] | None = None
    """Recompute activations in the backward pass: of attention only (selective), of whole layers (full)."""


@dataclass(kw_only=True, config=STRICT)
class Optimizer:
    """AdamW and its schedule."""

    lr: float = Field(gt=0)
    """Peak learning rate."""
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the end."""
    lr_decay_style: Literal["cosine", "linear", "constant"] = "cosine"
    """How it gets there."""
    lr_warmup_iters: int = Field(default=0, ge=0)
    """Steps from 0 to the peak."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled; norms and biases have none."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the gradient's average."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the squared gradient's average."""
    adam_eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""
    clip_grad: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""


@dataclass(kw_only=True, config=STRICT)
class Recipe:
    """A pretraining run."""

    output: str
    """Run folder: checkpoints/, log.jsonl, tensorboard/, recipe.yaml, manifest.json."""
    model: Model
    """Where the model comes from."""
    data: Data
    """What is read."""
    training: Training
    """How long, how much at a time, how precisely."""
    optimizer: Optimizer
    """AdamW and its schedule."""
    parallel: Parallel = dataclasses.field(default_factory=Parallel)
    """How the model is spread."""

    def __post_init__(self) -> None:
        """Check what concerns several sections."""
        if self.optimizer.lr_warmup_iters >= self.training.train_iters:
            raise ValueError(
                f"optimizer.lr_warmup_iters ({self.optimizer.lr_warmup_iters}) must be less than training.train_iters "
                f"({self.training.train_iters})"
            )
        if self.optimizer.min_lr > self.optimizer.lr:
            raise ValueError(f"optimizer.min_lr ({self.optimizer.min_lr}) must not exceed optimizer.lr ({self.optimizer.lr})")
        if self.parallel.sequence_parallel and self.parallel.tensor_model_parallel_size == 1:
            raise ValueError("parallel.sequence_parallel needs parallel.tensor_model_parallel_size of at least 2; set it to false")
        if self.parallel.overlap_param_gather and not self.parallel.overlap_grad_reduce:
            raise ValueError("parallel.overlap_param_gather needs parallel.overlap_grad_reduce; set both to true")


def check_layout(recipe: Recipe, architecture: Architecture, world_size: int) -> int:
    """Check that the model and the batch can be spread over `world_size` processes; return the data-parallel size.

    Raises:
        UsageError: they cannot; says which numbers do not divide and what would.
    """
    parallel, training = recipe.parallel, recipe.training
    tensor, pipeline = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    sequence = recipe.data.seq_length
    rules = [
        (architecture.num_attention_heads, "attention heads", tensor, "tensor_model_parallel_size"),
        (architecture.num_query_groups, "key/value heads", tensor, "tensor_model_parallel_size"),
        (architecture.ffn_hidden_size, "columns of the MLP", tensor, "tensor_model_parallel_size"),
    ]
    _check_stages(parallel, architecture.num_layers)
    if parallel.sequence_parallel:
        rules.append((sequence, "tokens in a sequence (data.seq_length)", tensor, "tensor_model_parallel_size with sequence_parallel"))
    for number, what, size, name in rules:
        if number % size:
            raise UsageError(f"the model's {number} {what} cannot be divided by parallel.{name} = {size}; possible: {_divisors(number)}")
    if world_size % (tensor * pipeline):
        raise UsageError(
            f"{world_size} processes cannot be divided into models of {tensor} x {pipeline} (tensor x pipeline); "
            f"start a multiple of {tensor * pipeline} with torchrun, or change parallel"
        )
    data = world_size // (tensor * pipeline)
    if training.global_batch_size % (training.micro_batch_size * data):
        raise UsageError(
            f"training.global_batch_size = {training.global_batch_size} is no multiple of micro_batch_size x data-parallel size "
            f"= {training.micro_batch_size} x {data}"
        )
    if sequence > architecture.max_position_embeddings:
        raise UsageError(f"data.seq_length = {sequence} is longer than the {architecture.max_position_embeddings} positions of the model")
    return data


def check_division(architecture: Architecture, tensor: int, pipeline: int) -> None:
    """Check that a model can be divided among `tensor` x `pipeline` processes.

    Raises:
        UsageError: it cannot; says which number does not divide and what would.
    """
    for number, what, size, name in (
        (architecture.num_attention_heads, "attention heads", tensor, "tensor"),
        (architecture.num_query_groups, "key/value heads", tensor, "tensor"),
        (architecture.ffn_hidden_size, "columns of the MLP", tensor, "tensor"),
        (architecture.num_layers, "layers", pipeline, "pipeline"),
    ):
        if number % size:
            raise UsageError(f"the model's {number} {what} cannot be divided by {name}-parallel size {size}; possible: {_divisors(number)}")


def _check_stages(parallel: Parallel, layers: int) -> None:
    """Check that the layers can be divided among the pipeline's stages."""
    stages = parallel.pipeline_model_parallel_size
    given = [n for n in (parallel.num_layers_in_first_pipeline_stage, parallel.num_layers_in_last_pipeline_stage) if n is not None]
    if given and stages == 1:
        raise UsageError("parallel.num_layers_in_first/last_pipeline_stage needs pipeline_model_parallel_size of at least 2")
    if not given and layers % stages:
        raise UsageError(
            f"the model's {layers} layers cannot be divided by parallel.pipeline_model_parallel_size = {stages}; "
            f"possible: {_divisors(layers)}, or give num_layers_in_first_pipeline_stage and num_layers_in_last_pipeline_stage"
        )
    rest, others = layers - sum(given), stages - len(given)
    if rest < others or (others == 0 and rest) or (others and rest % others):
        raise UsageError(
            f"with {' and '.join(map(str, given))} of the model's {layers} layers in the first or last stage, "
            f"{rest} are left for {others} other stages, which cannot be"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, min(number, 64) + 1) if number % n == 0)
