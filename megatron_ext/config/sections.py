"""The sections of a pretraining recipe: every option with its default and meaning.

Names are Megatron-LM's, without the dashes. What concerns several keys is checked in `checks`.
"""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT, ResumeMayChange

DType = Literal["fp32", "bf16", "fp16", "fp8"]


@dataclass(kw_only=True, config=STRICT)
class Model:
    """Where the model comes from."""

    checkpoint: str
    """Megatron checkpoint folder to start from (weights only).

    Made by checkpoints_convert/hf_to_megatron.py.
    """
    verify_checksums: ResumeMayChange[bool] = True
    """Compare all its files with the SHA-256 in its manifest.json before the first step.

    Each process reads a part of them.
    """
    architecture: ResumeMayChange[str | None] = None
    """JSON file that describes the model (the form of a checkpoint's architecture.json).

    It is for planning before the checkpoint exists.
    """


@dataclass(kw_only=True, config=STRICT)
class Parallel:
    """How the model is spread; what is left of the processes is data parallelism."""

    tensor_model_parallel_size: int = Field(default=1, ge=1)
    """Processes that share each layer."""
    pipeline_model_parallel_size: int = Field(default=1, ge=1)
    """Stages, each with its layers."""
    virtual_pipeline_model_parallel_size: int | None = Field(default=None, ge=2)
    """Interleaved pipeline: the number of pieces into which each stage's layers are cut.

    It makes a smaller bubble and more communication.
    """
    num_layers_in_first_pipeline_stage: int | None = Field(default=None, ge=1)
    """Layers of the first stage, where an even split would leave the stages unequally busy."""
    num_layers_in_last_pipeline_stage: int | None = Field(default=None, ge=1)
    """Layers of the last stage, which also computes the output layer and the loss."""
    sequence_parallel: bool = False
    """Split activations along the sequence among tensor-parallel processes, outside the GEMMs."""
    context_parallel_size: int = Field(default=1, ge=1)
    """Processes that share each sequence, attention included."""
    overlap_grad_reduce: bool = False
    """Reduce gradients while the backward pass goes on."""
    overlap_param_gather: bool = False
    """Gather updated weights while the forward pass goes on."""
    tp_comm_overlap: bool = False
    """Overlap tensor-parallel communication with the matrix products (Transformer Engine)."""


@dataclass(kw_only=True, config=STRICT)
class Source:
    """A part of the blend."""

    train: list[str] = Field(min_length=1)
    """Prefixes of its .bin/.idx files; each counts by its number of tokens."""
    validation: list[str] = Field(default_factory=list)
    """The same for validation; its loss is logged by the source's name."""
    weight: float = Field(ge=0)
    """Its share of the samples, relative to the other sources' weights.

    With 0 it is unused until a later phase names it.
    """


@dataclass(kw_only=True, config=STRICT)
class Phase:
    """Another blend from some step on."""

    start_step: int = Field(ge=1)
    """Steps that come before it."""
    weights: dict[str, float]
    """The share of each source from then on; a source that is not named has none."""


@dataclass(kw_only=True, config=STRICT)
class Data:
    """What is read: either train and validation, or sources."""

    train: list[str] = Field(default_factory=list)
    """Prefixes of .bin/.idx files (what preprocess.py wrote, without the ending).

    Each is weighted by its number of tokens.
    """
    validation: list[str] = Field(default_factory=list)
    """The same for validation."""
    sources: dict[str, Source] = Field(default_factory=dict)
    """Parts of a blend by name, each {train, validation, weight}."""
    phases: list[Phase] = Field(default_factory=list)
    """Later blends of the sources, each {start_step, weights}.

    A source continues where it was; no sample is repeated.
    """
    seq_length: int = Field(default=2048, ge=1)
    """Tokens in a sequence."""
    instruction: bool = False
    """The files are conversations (preprocess.py --instruction): learn the answers alone.

    A sequence holds one of them; with reset_attention_mask, as many as fit.
    """
    reset_attention_mask: bool = False
    """Let a token attend to its own document only; positions count from the document's start."""
    eod_mask_loss: bool = False
    """Leave the prediction after an end-of-document token out of the loss."""
    warn_above_epochs: ResumeMayChange[float] = Field(default=4.0, gt=0)
    """Warn where the run reads a source more often than this.

    For up to four epochs, repeated text is worth nearly as much as new text (Muennighoff et al.
    2023).
    """
    num_workers: ResumeMayChange[int] = Field(default=2, ge=0)
    """Processes that read ahead, for each training process; 0 reads in the process itself."""

    @property
    def train_prefixes(self) -> list[str]:
        """All files that are trained on."""
        return self.train + [prefix for source in self.sources.values() for prefix in source.train]

    @property
    def validation_prefixes(self) -> list[str]:
        """All files that are validated on."""
        return self.validation + [
            prefix for source in self.sources.values() for prefix in source.validation
        ]

    @property
    def prefixes(self) -> list[str]:
        """All files."""
        return self.train_prefixes + self.validation_prefixes


@dataclass(kw_only=True, config=STRICT)
class Training:
    """How long, how much at a time, how precisely."""

    train_iters: int = Field(ge=1)
    """Optimizer steps of the whole run."""
    micro_batch_size: ResumeMayChange[int] = Field(default=1, ge=1)
    """Sequences in one forward pass of one process."""
    global_batch_size: int = Field(ge=1)
    """Sequences in one optimizer step, over all processes."""
    rampup_batch_size: tuple[int, int, int] | None = None
    """[start, increment, samples] of the batch size ramp-up.

    The global batch grows from start by increments to its size while so many samples pass.
    """
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of weights and activations; the optimizer keeps fp32 copies."""
    fp8_format: Literal["e4m3", "hybrid"] | None = None
    """FP8 matrix products: e4m3, or hybrid with e5m2 gradients (Transformer Engine)."""
    fp8_recipe: Literal["delayed", "tensorwise", "blockwise", "mxfp8"] = "delayed"
    """The FP8 scaling.

    It uses the past steps' largest values, the present tensor's, blocks (Hopper), or groups of 32
    values (Blackwell).
    """
    fp8_param_gather: bool = False
    """Keep and gather the weights in FP8."""
    fp8_amax_history_len: int = Field(default=1024, ge=1)
    """Steps that delayed scaling looks back."""
    fp8_amax_compute_algo: Literal["most_recent", "max"] = "max"
    """What delayed scaling takes of them."""
    first_last_layers_bf16: bool = False
    """Keep the first and last layers out of FP8."""
    num_layers_at_start_in_bf16: int = Field(default=1, ge=0)
    """How many first layers."""
    num_layers_at_end_in_bf16: int = Field(default=1, ge=0)
    """How many last layers."""
    cross_entropy_loss_fusion: bool = False
    """Compute the loss in one fused pass over the logits."""
    recompute_granularity: ResumeMayChange[Literal["selective", "full"] | None] = None
    """Recompute activations in the backward pass: some modules (selective) or layers (full)."""
    recompute_modules: ResumeMayChange[list[Literal["core_attn", "layernorm", "mlp"]] | None] = None
    """Which modules selective recompute takes; core_attn when none is named."""
    recompute_method: ResumeMayChange[Literal["uniform", "block"] | None] = None
    """Full recompute: all layers in groups (uniform, the default) or each stage's first (block)."""
    recompute_num_layers: ResumeMayChange[int | None] = Field(default=None, ge=1)
    """Layers per group (uniform) or recomputed layers per stage (block); default 1.

    A group's size divides the number of layers of a stage.
    """
    seed: int = 1234
    """Decides the order of the data and all random numbers."""
    eval_interval: ResumeMayChange[int] = Field(default=100, ge=1)
    """Steps between two validations; one more comes before the first step and after the last."""
    eval_iters: int = Field(default=10, ge=0)
    """Global batches in a validation (of each source), always the same ones; 0 disables it."""
    save_interval: ResumeMayChange[int] = Field(default=1000, ge=1)
    """Steps between two checkpoints; one more comes after the last step."""
    keep_last: ResumeMayChange[int] = Field(default=2, ge=1)
    """Newest complete checkpoints that are kept."""
    keep_every_n_steps: ResumeMayChange[int | None] = Field(default=None, ge=1)
    """Checkpoints of steps that are multiples of this are kept for ever."""
    async_save: ResumeMayChange[bool] = False
    """Write checkpoints in a process of their own while training goes on."""
    manual_gc_interval: ResumeMayChange[int] = Field(default=100, ge=0)
    """Steps between garbage collections, synchronous on all processes; 0 leaves them to Python."""
    log_interval: ResumeMayChange[int] = Field(default=1, ge=1)
    """Steps between two lines."""


@dataclass(kw_only=True, config=STRICT)
class Optimizer:
    """AdamW and its schedule."""

    lr: float = Field(gt=0)
    """Peak learning rate."""
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the end."""
    lr_decay_style: Literal["cosine", "linear", "constant", "inverse-square-root", "WSD"] = "cosine"
    """How it gets there; WSD stays at the peak and falls in the last lr_wsd_decay_iters steps."""
    lr_warmup_iters: int = Field(default=0, ge=0)
    """Steps from 0 to the peak."""
    lr_decay_iters: int | None = Field(default=None, ge=1)
    """Step at which min_lr is reached; train_iters when not given."""
    lr_wsd_decay_iters: int | None = Field(default=None, ge=1)
    """Steps of the fall (WSD)."""
    lr_wsd_decay_style: Literal["linear", "cosine", "exponential", "minus_sqrt"] = "exponential"
    """Form of the fall (WSD)."""
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
    use_precision_aware_optimizer: bool = False
    """Allow the types below for gradients, weights and optimizer state.

    This uses Transformer Engine's FusedAdam.
    """
    main_grads_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of the gradients that the optimizer reads."""
    main_params_dtype: Literal["fp32", "fp16"] = "fp32"
    """Type of the optimizer's copy of the weights."""
    exp_avg_dtype: DType = "fp32"
    """Type of the gradient's average."""
    exp_avg_sq_dtype: DType = "fp32"
    """Type of the squared gradient's average."""
    optimizer_cpu_offload: ResumeMayChange[bool] = False
    """Keep the optimizer's state in the host's memory and step there."""
    optimizer_offload_fraction: ResumeMayChange[float] = Field(default=1.0, gt=0, le=1)
    """How much of it."""
    overlap_cpu_optimizer_d2h_h2d: ResumeMayChange[bool] = False
    """Copy to and from the host while the step goes on."""


@dataclass(kw_only=True, config=STRICT)
class Resilience:
    """What a run does when it must stop, and when something goes wrong."""

    exit_duration_in_mins: ResumeMayChange[float | None] = Field(default=None, gt=0)
    """Save and stop (exit code 75) after so many minutes since the start of the process."""
    exit_trigger_file: ResumeMayChange[str | None] = None
    """Save and stop when this file appears; RUN/stop when not given."""
    distributed_timeout_minutes: ResumeMayChange[float] = Field(default=10.0, gt=0)
    """End a run after a process has made no progress for so long, naming who waits for whom."""
    check_memory: ResumeMayChange[bool] = True
    """Refuse a run on CPUs that needs more memory, by an estimate, than the machine has free."""
    straggler_interval: ResumeMayChange[int] = Field(default=100, ge=0)
    """Steps between two comparisons of the processes' speed; 0 for none."""
    straggler_ratio: ResumeMayChange[float] = Field(default=1.3, gt=1)
    """A process is named that needs this many times the median for the same work."""
    max_skipped_steps: int = Field(default=100, ge=0)
    """Steps that may be skipped in all before the run stops.

    Steps are skipped for a non-finite loss or gradient, or for a loss spike.
    """
    loss_spike_threshold: float | None = Field(default=None, gt=1)
    """A loss above this many times the median of the window is a spike.

    The run returns to the last checkpoint and skips the window's data.
    """
    loss_spike_window: int = Field(default=100, ge=2)
    """Losses that the median is taken of; no spike is seen before there are half as many."""


@dataclass(kw_only=True, config=STRICT)
class Wandb:
    """Weights & Biases (pip install -e '.[wandb]').

    Its key is read from WANDB_API_KEY or `wandb login`, never from a recipe.
    """

    project: str = Field(min_length=1)
    """Project there."""
    entity: str | None = None
    """User or team; the key's own when not given."""
    name: str | None = None
    """Name of the run; the run folder's when not given."""
    group: str | None = None
    """What runs are listed under together."""
    tags: list[str] = Field(default_factory=list)
    """Words to find the run by."""
    mode: Literal["online", "offline"] | None = None
    """Mode of wandb; offline keeps the figures in the run folder for a later `wandb sync`.

    When not given, WANDB_MODE decides, else it is online.
    """
