"""The sections of a pretraining recipe: every option with its default and meaning.

Names are Megatron-LM's, without the dashes. What concerns several keys is checked in `checks`.
"""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT, ResumeMayChange
from megatron_ext.config.rope import Rope

DType = Literal["fp32", "bf16", "fp16", "fp8"]
AttentionBackend = Literal["flash", "fused", "unfused", "local", "auto"]
RecomputeModule = Literal["core_attn", "mlp", "moe", "moe_act", "shared_experts"]
OffloadModule = Literal["core_attn", "attn_proj", "qkv_linear"]
CommunicationType = Literal["p2p", "all_gather", "a2a", "a2a+p2p"]


@dataclass(kw_only=True, config=STRICT)
class Model:
    """Where the model comes from."""

    checkpoint: str
    """Megatron checkpoint folder to start from (weights only).

    Made by `galen import`.
    """
    verify_checksums: ResumeMayChange[bool] = True
    """Compare all its files with the SHA-256 in its manifest.json before the first step.

    The processes divide the files among them.
    """
    architecture: ResumeMayChange[str | None] = None
    """JSON file of the architecture, in the format of a checkpoint's architecture.json.

    For planning before the checkpoint exists.
    """
    rope: Rope | None = None
    """Rotary positions that replace the checkpoint's, to train at a longer context."""


@dataclass(kw_only=True, config=STRICT)
class Parallel:
    """Parallelism; DP = world_size / (TP x PP x CP).

    For experts, EDP = world_size / (ETP x EP x PP) processes hold copies of the same weights.
    """

    tensor_model_parallel_size: int = Field(default=1, ge=1)
    """Processes among which each layer is divided."""
    pipeline_model_parallel_size: int = Field(default=1, ge=1)
    """Pipeline stages, each with its layers."""
    virtual_pipeline_model_parallel_size: int | None = Field(default=None, ge=2)
    """Interleaved pipeline: the number of model chunks in each stage.

    More chunks make a smaller bubble and more communication.
    """
    num_layers_in_first_pipeline_stage: int | None = Field(default=None, ge=1)
    """Layers of the first stage, to balance the stages."""
    num_layers_in_last_pipeline_stage: int | None = Field(default=None, ge=1)
    """Layers of the last stage, which also computes the output layer and the loss."""
    pipeline_model_parallel_layout: str | None = None
    """Layers of each model chunk, for example Ett|ttt|ttt|ttL, in Megatron Core's syntax.

    E is the embedding, t a layer, L the output layer with the loss; * repeats, also a part in
    parentheses. The chunks are listed as a forward pass visits them: the first of each stage, then
    the second of each (virtual_pipeline_model_parallel_size), and so on.
    """
    sequence_parallel: bool = False
    """Split activations along the sequence among tensor-parallel processes, outside the GEMMs."""
    context_parallel_size: int = Field(default=1, ge=1)
    """Processes among which each sequence is divided, attention included."""
    cp_comm_type: CommunicationType | list[CommunicationType] | None = None
    """How attention communicates under context parallelism, in all layers or a list with each's.

    p2p sends keys and values around a ring (Transformer Engine's default), all_gather gathers them
    (PyTorch's layers always do), a2a exchanges heads for tokens, and a2a+p2p does so within a ring.
    """
    hierarchical_context_parallel_sizes: tuple[int, int] | None = None
    """[exchange, ring] sizes of cp_comm_type: a2a+p2p; their product is context_parallel_size."""
    expert_model_parallel_size: int = Field(default=1, ge=1)
    """Processes among which the experts of a layer are divided, out of TP x CP x DP."""
    expert_tensor_parallel_size: int | None = Field(default=None, ge=1)
    """Processes among which each expert is divided: 1, or tensor_model_parallel_size (default)."""
    moe_token_dispatcher_type: Literal["alltoall", "allgather"] = "alltoall"
    """How tokens reach their experts: each is sent to its experts' processes, or to all.

    allgather is faster only for few experts, with as many of them per token.
    """
    overlap_grad_reduce: bool = False
    """Reduce gradients during the backward pass."""
    ddp_bucket_size: int | None = Field(default=None, ge=1)
    """Weights in a bucket, whose gradients are reduced at once (overlap_grad_reduce).

    By default 40 million, and at least a million per data-parallel process.
    """
    overlap_param_gather: bool = False
    """Gather updated weights during the forward pass."""
    tp_comm_overlap: bool = False
    """Overlap tensor-parallel communication with the matrix products (Transformer Engine)."""
    tp_comm_overlap_cfg: str | None = None
    """YAML file with the method and resources of tp_comm_overlap for each GEMM.

    By default Transformer Engine's own.
    """
    nccl_communicator_config_path: str | None = None
    """YAML file with NCCL's resources for each process group, such as {dp_cp: {max_ctas: 16}}."""
    use_sharp: bool = False
    """Reduce the gradients of data parallelism in the switches of an InfiniBand network (SHARP)."""

    @property
    def communication_types(self) -> set[CommunicationType]:
        """The communication types that cp_comm_type names."""
        if self.cp_comm_type is None:
            return set()
        if isinstance(self.cp_comm_type, str):
            return {self.cp_comm_type}
        return set(self.cp_comm_type)


@dataclass(kw_only=True, config=STRICT)
class Source:
    """A source of the blend."""

    train: list[str] = Field(min_length=1)
    """Prefixes of its .bin/.idx files; each counts by its number of tokens."""
    validation: list[str] = Field(default_factory=list)
    """The same for validation; its loss is logged by the source's name."""
    weight: float = Field(ge=0)
    """Its fraction of the samples, relative to the other sources' weights.

    With 0 it is unused until a later phase names it.
    """


@dataclass(kw_only=True, config=STRICT)
class Phase:
    """Another blend, from a step on."""

    start_step: int = Field(ge=1)
    """Steps that come before it."""
    weights: dict[str, float]
    """Weight of each source from then on; a source that is not named has none."""


@dataclass(kw_only=True, config=STRICT)
class Data:
    """Training and validation data: either train and validation, or sources."""

    train: list[str] = Field(default_factory=list)
    """Prefixes of .bin/.idx files (the paths without the ending).

    Each is weighted by its number of tokens.
    """
    validation: list[str] = Field(default_factory=list)
    """The same for validation."""
    sources: dict[str, Source] = Field(default_factory=dict)
    """Sources of a blend by name, each {train, validation, weight}."""
    phases: list[Phase] = Field(default_factory=list)
    """Later blends of the sources, each {start_step, weights}.

    A source continues at its last sample; none is repeated.
    """
    seq_length: int = Field(default=2048, ge=1)
    """Tokens in a sequence."""
    instruction: bool = False
    """The files are conversations (`galen preprocess --instruction`): train on the answers only.

    A sequence holds one of them; with reset_attention_mask, as many as fit.
    """
    reset_attention_mask: bool = False
    """Let a token attend to its own document only; positions count from the document's start."""
    packing_strategy: Literal["wrapped", "bfd"] = "wrapped"
    """How documents fill sequences: cut at their ends (wrapped), or packed so that none is cut that
    fits into one (bfd: best-fit decreasing; needs reset_attention_mask).
    """
    pad_documents_to_multiple_of: ResumeMayChange[int | None] = Field(default=None, ge=2)
    """Pad each document of a sequence to a multiple of this many tokens (reset_attention_mask).

    By default 2 x context_parallel_size, which context parallelism needs, and none without it. Set
    it to that of the largest layout to change context_parallel_size during a run.
    """
    eod_mask_loss: bool = False
    """Mask the loss of the prediction after an end-of-document token."""
    warn_above_epochs: ResumeMayChange[float] = Field(default=4.0, gt=0)
    """Warn if the run reads a source more often than this.

    For up to four epochs, repeated text is worth nearly as much as new text (Muennighoff et al.
    2023).
    """
    num_workers: ResumeMayChange[int] = Field(default=2, ge=0)
    """Data loader processes of each training process; 0 loads in the process itself."""

    @property
    def train_prefixes(self) -> list[str]:
        """All training files, those of sources in the order of their names."""
        prefixes = list(self.train)
        for name in sorted(self.sources):
            prefixes += self.sources[name].train
        return prefixes

    @property
    def validation_prefixes(self) -> list[str]:
        """All validation files, those of sources in the order of their names."""
        prefixes = list(self.validation)
        for name in sorted(self.sources):
            prefixes += self.sources[name].validation
        return prefixes

    @property
    def prefixes(self) -> list[str]:
        """All files."""
        return self.train_prefixes + self.validation_prefixes


@dataclass(kw_only=True, config=STRICT)
class Training:
    """Steps, batch size, precision, validation and checkpoints."""

    train_iters: int = Field(ge=1)
    """Optimizer steps of the run."""
    micro_batch_size: ResumeMayChange[int] = Field(default=1, ge=1)
    """Sequences in one forward pass of one process."""
    global_batch_size: int = Field(ge=1)
    """Sequences in one optimizer step, over all processes."""
    rampup_batch_size: tuple[int, int, int] | None = None
    """[start, increment, samples] of the batch size ramp-up.

    The global batch size grows from start by increments to its final value over so many samples.
    """
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of weights and activations; the optimizer keeps fp32 copies."""
    fp8_format: Literal["e4m3", "hybrid"] | None = None
    """FP8 matrix products: e4m3, or hybrid with e5m2 gradients (Transformer Engine)."""
    fp8_recipe: Literal["delayed", "tensorwise", "blockwise", "mxfp8"] = "delayed"
    """FP8 scaling.

    By the maxima of past steps (delayed), of the current tensor (tensorwise), of blocks (blockwise,
    Hopper), or of groups of 32 values (mxfp8, Blackwell).
    """
    fp8_param_gather: bool = False
    """Keep and gather the weights in FP8."""
    fp8_amax_history_len: int = Field(default=1024, ge=1)
    """Length of the history of maxima (delayed scaling)."""
    fp8_amax_compute_algo: Literal["most_recent", "max"] = "max"
    """How delayed scaling chooses from the history."""
    first_last_layers_bf16: bool = False
    """Keep the first and last layers out of FP8."""
    num_layers_at_start_in_bf16: int = Field(default=1, ge=0)
    """Number of first layers in bf16."""
    num_layers_at_end_in_bf16: int = Field(default=1, ge=0)
    """Number of last layers in bf16."""
    cross_entropy_loss_fusion: bool = False
    """Compute the loss in one fused pass over the logits (bf16 only)."""
    attention_backend: ResumeMayChange[AttentionBackend] = "auto"
    """Attention kernels: FlashAttention (flash), cuDNN's (fused) or the unfused ones of Transformer
    Engine, which chooses itself under auto; PyTorch's (local), which the CPU platform always uses.
    """
    deterministic_mode: ResumeMayChange[bool] = False
    """Use deterministic kernels and collectives only, which are slower, for bit-identical losses.

    On GPUs; the CPU platform's are deterministic.
    """
    recompute_granularity: ResumeMayChange[Literal["selective", "full"] | None] = None
    """Recompute activations in the backward pass: some modules (selective) or layers (full)."""
    recompute_modules: ResumeMayChange[list[RecomputeModule] | None] = None
    """Modules of selective recompute.

    Of a mixture of experts: moe (router and experts), shared_experts, or moe_act (the activation
    alone, under Transformer Engine) in place of mlp.

    core_attn saves little memory, since fused attention keeps no scores. Megatron's layernorm would
    save none: Transformer Engine fuses the norms with the GEMMs after them.
    """
    recompute_method: ResumeMayChange[Literal["uniform", "block"] | None] = None
    """Full recompute: all layers in groups (uniform, the default) or each stage's first (block)."""
    recompute_num_layers: ResumeMayChange[int | None] = Field(default=None, ge=1)
    """Layers per group (uniform) or recomputed layers per stage (block); default 1.

    The size of a group must divide the number of layers of a stage.
    """
    cpu_offloading_num_layers: ResumeMayChange[int] = Field(default=0, ge=0)
    """Layers whose activations wait in host memory for the backward pass (Transformer Engine)."""
    fine_grained_activation_offloading: ResumeMayChange[bool] = False
    """Offload the inputs of offload_modules instead, in all layers and also in a pipeline.

    Needs Transformer Engine and megatron-core 0.19.
    """
    offload_modules: ResumeMayChange[list[OffloadModule] | None] = None
    """Modules of fine_grained_activation_offloading; attn_proj only together with core_attn."""
    seed: int = 1234
    """Of the order of the data and all random numbers."""
    eval_interval: ResumeMayChange[int] = Field(default=100, ge=1)
    """Steps between validations; also before the first step and after the last."""
    eval_iters: int = Field(default=10, ge=0)
    """Global batches of a validation (of each source), always the same; 0 disables it."""
    save_interval: ResumeMayChange[int] = Field(default=1000, ge=1)
    """Steps between checkpoints; also after the last step."""
    keep_last: ResumeMayChange[int] = Field(default=2, ge=1)
    """Number of newest complete checkpoints to keep."""
    keep_every_n_steps: ResumeMayChange[int | None] = Field(default=None, ge=1)
    """Also keep all checkpoints whose step is a multiple of this."""
    async_save: ResumeMayChange[bool] = False
    """Continue training while a separate process writes and hashes a checkpoint."""
    dist_ckpt_optim_fully_reshardable: ResumeMayChange[Literal["last", "always", "never"]] = "last"
    """Which checkpoints hold the optimizer's state as fully_reshardable, Megatron's format for any
    layout: the run's last and one asked for with the trigger file (last), all, or none.

    It gathers the state of a pipeline stage in the host memory of each process. The other format,
    dp_reshardable, is written without communication; Galen resumes from both under any layout, and
    `galen reshard` converts to fully_reshardable.
    """
    manual_gc_interval: ResumeMayChange[int] = Field(default=100, ge=0)
    """Steps between garbage collections, synchronized among processes; 0: by Python itself."""
    log_interval: ResumeMayChange[int] = Field(default=1, ge=1)
    """Steps between log lines."""


@dataclass(kw_only=True, config=STRICT)
class Optimizer:
    """AdamW and its schedule."""

    lr: float = Field(gt=0)
    """Peak learning rate."""
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the end."""
    lr_decay_style: Literal["cosine", "linear", "constant", "inverse-square-root", "WSD"] = "cosine"
    """Shape of the decay; WSD is constant up to the last lr_wsd_decay_iters steps."""
    lr_warmup_iters: int = Field(default=0, ge=0)
    """Steps of linear warm-up from 0 to the peak."""
    lr_decay_iters: int | None = Field(default=None, ge=1)
    """Step at which min_lr is reached; train_iters by default."""
    lr_wsd_decay_iters: int | None = Field(default=None, ge=1)
    """Steps of the decay (WSD)."""
    lr_wsd_decay_style: Literal["linear", "cosine", "exponential", "minus_sqrt"] = "exponential"
    """Shape of the decay (WSD)."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay; not of norms and biases."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay rate of the first moment."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay rate of the second moment."""
    adam_eps: float = Field(default=1e-8, gt=0)
    """Epsilon in the denominator."""
    clip_grad: float = Field(default=1.0, gt=0)
    """Max gradient norm."""
    use_precision_aware_optimizer: bool = False
    """Allow the types below for gradients, weights and optimizer state.

    This uses Transformer Engine's FusedAdam.
    """
    main_grads_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of the gradients that the optimizer reads."""
    grad_reduce_in_bf16: bool = False
    """Accumulate and reduce the model's gradients in bf16, with half the memory and traffic."""
    ddp_reduce_scatter_with_fp32_accumulation: bool = False
    """Add the processes' bf16 gradients in fp32 (all-to-all instead of reduce-scatter)."""
    ddp_param_name_patterns_for_fp32_local_accumulation: list[str] = Field(default_factory=list)
    """Weights whose bf16 gradients a process accumulates in fp32 and then reduces in bf16.

    Patterns such as "*.linear_fc1.*", or [all]. Needs megatron-core 0.19.
    """
    main_params_dtype: Literal["fp32", "fp16"] = "fp32"
    """Type of the optimizer's copy of the weights."""
    exp_avg_dtype: DType = "fp32"
    """Type of the first moment."""
    exp_avg_sq_dtype: DType = "fp32"
    """Type of the second moment."""
    optimizer_cpu_offload: ResumeMayChange[bool] = False
    """Keep the optimizer's state in host memory and step there."""
    optimizer_offload_fraction: ResumeMayChange[float] = Field(default=1.0, gt=0, le=1)
    """Fraction of the state to offload."""
    overlap_cpu_optimizer_d2h_h2d: ResumeMayChange[bool] = False
    """Overlap the copies to and from the host with the step."""

    @property
    def gradients_dtype(self) -> Literal["fp32", "bf16"]:
        """Type in which gradients are accumulated and reduced."""
        return "bf16" if self.grad_reduce_in_bf16 else self.main_grads_dtype
