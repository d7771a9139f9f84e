"""Fit the planner's speed model to published runs, and its errors for the runs held out.

    python benchmarks/planner_fit.py

Which runs are held out was decided by model before the first fit. Five constants (`Efficiencies` of
the throughput model) are fitted to the others by least squares of the relative errors, with priors
around values known from kernels alone: half to 60% of the peak for matrix products and attention,
80% of overlapped communication hidden, and for a layer about 100 kernels with 3 µs of launch, ramp
and tail each. One more, `router_overhead`, is fitted to mixtures of experts, without a prior, the
others fixed. `EFFICIENCIES` are the results, rounded.

Sources of the runs, read in November 2026, with the layouts as published:

- NeMo 24.07: NVIDIA/NeMo, docs/source/performance/performance_summary.md (DGX-H100, FP8);
- DGXC 24.09, DGXC 24.12: NVIDIA/dgxc-benchmarking, README files of llama3.1, nemo_megatron and
  nemotron (step times on H100);
- Bridge: NVIDIA-NeMo/Megatron-Bridge, docs/performance-summary-archive.md (DGX-H100, FP8 with
  current scaling), by release of the container;
- Bridge of August 2026: the same repository, docs/training/moe-optimization.md and the skills
  nemo-mbridge-perf-moe-hardware-configs and -dispatcher-selection (Qwen3-30B-A3B on 16 H100);
  dispatchers by release: scripts/performance/configs at v0.2.0, v0.3.0 and v0.3.1;
- Model zoo: yanring/Megatron-MoE-ModelZoo, best_practice/qwen3/readme.md (256 H100);
- MEDITRON: arXiv 2311.16079 (A100-80GB, Megatron-LLM).

All runs of mixtures of experts force balanced routing. Runs that Galen's pretraining cannot express
are left out: LoRA, latent attention (DeepSeek-V3), Mamba layers (Nemotron 3), and those that drop
tokens (NeMo's Mixtral and Grok 1, Megatron-Bridge 25.09), which need not wait for their counts.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from galen import cli
from megatron_ext.config.architecture import Architecture, read_architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Data, Model, Optimizer, Parallel, Training
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.throughput_model import (
    EFFICIENCIES,
    LONG_EFFICIENCIES,
    Efficiencies,
    step_time,
)

ARCHITECTURES = Path(__file__).parents[1] / "examples/pretrain/architectures"


def _model(sizes: str, *, gated: bool = True, tied: bool = False) -> Architecture:
    """Return a model of `sizes`: layers, hidden size, MLP, heads, groups, vocabulary."""
    layers, hidden, mlp, heads, groups, vocab = map(int, sizes.split())
    return Architecture(
        family="llama",
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=mlp,
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=hidden // heads,
        vocab_size=vocab,
        max_position_embeddings=8192,
        rotary_base=1e4,
        layernorm_epsilon=1e-5,
        share_embeddings_and_output_weights=tied,
        gated_mlp=gated,
        activation="silu" if gated else "relu2",
    )


# GPT-3's learned positions, biases and GELU cost about what rotary positions and ReLU² cost
MODELS = {
    "GPT-3 5B": _model("24 4096 16384 32 32 51200", gated=False, tied=True),
    "Llama 2 7B": _model("32 4096 11008 32 32 32000"),
    "Llama 3 8B": _model("32 4096 14336 32 8 128256"),
    "Nemotron 8B": _model("32 4096 16384 32 32 256000", gated=False),
    "Llama 2 13B": _model("40 5120 13824 40 40 32000"),
    "Nemotron-4 15B": _model("32 6144 24576 48 8 256000", gated=False),
    "GPT-3 20B": _model("44 6144 24576 48 48 51200", gated=False, tied=True),
    "Nemotron 22B": _model("40 6144 24576 48 48 256000", gated=False),
    "Llama 2 70B": _model("80 8192 28672 64 8 32000"),
    "Llama 3 70B": _model("80 8192 28672 64 8 128256"),
    "GPT-3 175B": _model("96 12288 49152 96 96 51200", gated=False, tied=True),
    "Nemotron-4 340B": _model("96 18432 73728 96 8 256000", gated=False),
    "Llama 3.1 405B": _model("126 16384 53248 128 8 128256"),
    # a slice of it that DGXC runs on fewer GPUs
    "Llama 3.1 405B, 7 layers": _model("7 16384 53248 128 8 128256"),
    "MEDITRON-70B": read_architecture(ARCHITECTURES / "meditron_70b.json"),
}


def _experts(sizes: str, **properties: Any) -> Architecture:
    """Return a mixture of experts of `sizes`: as `_model`, then head size, experts, active ones."""
    dense, head, number, active = sizes.rsplit(maxsplit=3)
    model = _model(dense)
    return dataclasses.replace(
        model,
        kv_channels=int(head),
        num_moe_experts=int(number),
        moe_router_topk=int(active),
        moe_ffn_hidden_size=model.ffn_hidden_size,
        **properties,
    )


_GPT_OSS: dict[str, Any] = {
    "add_qkv_bias": True,
    "add_bias_linear": True,
    "softmax_type": "learnable",
    "activation": "quick_gelu",
    "glu_linear_offset": 1.0,
    "activation_func_clamp_value": 7.0,
    "window_size": 128,
    "window_attn_skip_freq": (1, 0) * 18,
}
MODELS |= {
    "Qwen3 30B-A3B": _experts("48 2048 768 32 4 151936 128 128 8", qk_layernorm=True),
    "Qwen3 235B-A22B": _experts("94 4096 1536 64 4 151936 128 128 8", qk_layernorm=True),
    "gpt-oss 120B": _experts("36 2880 2880 64 8 201088 64 128 4", **_GPT_OSS),
}
HELD_OUT_MODELS = (
    "Qwen3 235B-A22B",
    "GPT-3 5B",
    "Nemotron 8B",
    "Llama 2 13B",
    "Nemotron 22B",
    "Llama 2 70B",
    "Nemotron-4 340B",
    "Llama 3.1 405B",
    "Llama 3.1 405B, 7 layers",
    "MEDITRON-70B",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A published figure and its run."""

    source: str
    model: str
    precision: str
    gpus: int
    batch: int
    """Sequences of a step."""
    length: int
    micro: int = 1
    tensor: int = 1
    pipeline: int = 1
    virtual: int | None = None
    context: int = 1
    expert: int = 1
    dispatch_overlap: bool = False
    """Whether tokens reach their experts while another micro-batch is computed."""
    tokens: float
    """Tokens/s/GPU."""
    gpu: str = "h100-80gb"
    edge_layers: int | None = None
    """Layers of the first and of the last stage, where the embeddings count as layers."""
    chunks: str | None = None
    """Layers of the model chunks, in Megatron's syntax."""
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    overlap: bool = True

    @property
    def held_out(self) -> bool:
        """Whether the constants were not fitted to it."""
        return self.model in HELD_OUT_MODELS

    @property
    def architecture(self) -> Architecture:
        """The model."""
        return MODELS[self.model]

    @property
    def layout(self) -> str:
        """The layout in a line."""
        words = [
            f"TP{self.tensor}" if self.tensor > 1 else "",
            f"PP{self.pipeline}" if self.pipeline > 1 else "",
            f"VP{self.virtual}" if self.virtual else "",
            f"CP{self.context}" if self.context > 1 else "",
            f"EP{self.expert}" if self.expert > 1 else "",
        ]
        if self.dispatch_overlap:
            words.append("overlap")
        elif self.chunks and self.expert == 1:
            words.append("balanced")
        return " ".join(filter(None, words)) or "DP"

    def recipe(self) -> Recipe:
        """Return it as a recipe, with NVIDIA's usual options."""
        fp8 = self.precision == "FP8"
        return Recipe(
            output="unused",
            model=Model(checkpoint="unused"),
            data=Data(train=["unused"], validation=["unused"], seq_length=self.length),
            training=Training(
                train_iters=23000,
                global_batch_size=self.batch,
                micro_batch_size=self.micro,
                fp8_format="hybrid" if fp8 else None,
                fp8_recipe="tensorwise",
                fp8_param_gather=fp8,
                **self.training,
            ),
            optimizer=Optimizer(lr=1e-4, grad_reduce_in_bf16=True),
            parallel=Parallel(
                tensor_model_parallel_size=self.tensor,
                pipeline_model_parallel_size=self.pipeline,
                virtual_pipeline_model_parallel_size=self.virtual,
                pipeline_model_parallel_layout=self.chunks,
                num_layers_in_first_pipeline_stage=self.edge_layers,
                num_layers_in_last_pipeline_stage=self.edge_layers,
                context_parallel_size=self.context,
                expert_model_parallel_size=self.expert,
                expert_tensor_parallel_size=1 if self.expert > 1 else None,
                sequence_parallel=self.tensor > 1,
                tp_comm_overlap=self.tensor > 1 and self.overlap,
                overlap_grad_reduce=True,
                overlap_param_gather=True,
            ),
        )

    def planned(self, efficiencies: Efficiencies) -> float:
        """Return the planned tokens/s/GPU."""
        if self.dispatch_overlap:
            hidden = efficiencies.overlap_fraction
            efficiencies = dataclasses.replace(efficiencies, dispatch_overlap_fraction=hidden)
        step = step_time(self.architecture, self.recipe(), self.gpus, GPUS[self.gpu], efficiencies)
        return self.batch * self.length / step.total / self.gpus

    def error(self, efficiencies: Efficiencies) -> float:
        """Return the relative error of the planned throughput."""
        return self.planned(efficiencies) / self.tokens - 1


def _tokens(source: str, model: str, tokens: float, sizes: str, **layout: Any) -> PublishedRun:
    """Return a run of `sizes` "precision GPUs batch x length" with its tokens/s/GPU."""
    precision, gpus, batch, _, length = sizes.split()
    return PublishedRun(
        source=source,
        model=model,
        precision=precision,
        gpus=int(gpus),
        batch=int(batch),
        length=int(length),
        tokens=tokens,
        **layout,
    )


def _seconds(source: str, model: str, seconds: float, sizes: str, **layout: Any) -> PublishedRun:
    """Return a run with the seconds of its step."""
    run = _tokens(source, model, 0.0, sizes, **layout)
    return dataclasses.replace(run, tokens=run.batch * run.length / seconds / run.gpus)


_D = "DGXC 24.09"
L8 = "Llama 3 8B"
L70 = "Llama 3 70B"
L405 = "Llama 3.1 405B"
G175 = "GPT-3 175B"
N15 = "Nemotron-4 15B"
TP4PP4 = {"tensor": 4, "pipeline": 4, "virtual": 5, "context": 2}
TP4PP8 = {"tensor": 4, "pipeline": 8, "virtual": 5}
BALANCED = "Et*2|(t*2|)*34,t*3|(t*2|)*3,tL"
TP8PP9 = {"tensor": 8, "pipeline": 9, "virtual": 7, "context": 2}
TP8PP8 = {"tensor": 8, "pipeline": 8, "virtual": 8, "context": 2, "edge_layers": 15}
GPT = {"tensor": 4, "pipeline": 8, "virtual": 12}
N15L = {"tensor": 4, "micro": 4}

RUNS = [
    _tokens("NeMo 24.07", "GPT-3 5B", 22521, "FP8 64 2048 x 2048", micro=4),
    _tokens("NeMo 24.07", "GPT-3 20B", 5851, "FP8 64 256 x 2048", micro=2, tensor=2),
    _tokens(
        "NeMo 24.07", G175, 782, "FP8 512 2048 x 2048", micro=2, tensor=4, pipeline=8, virtual=6
    ),
    _tokens("NeMo 24.07", "Llama 2 7B", 16847, "FP8 8 128 x 4096"),
    _tokens("NeMo 24.07", "Llama 2 13B", 8646, "FP8 16 128 x 4096", pipeline=4, virtual=10),
    _tokens(
        "NeMo 24.07", "Llama 2 70B", 1707, "FP8 64 128 x 4096", tensor=4, pipeline=4, virtual=20
    ),
    _tokens("NeMo 24.07", "Nemotron 8B", 12701, "FP8 64 256 x 4096", micro=4, tensor=2),
    _tokens(
        "NeMo 24.07",
        "Nemotron 22B",
        4256,
        "FP8 64 256 x 4096",
        micro=2,
        tensor=2,
        pipeline=4,
        virtual=10,
    ),
    _tokens(
        "NeMo 24.07", "Nemotron-4 340B", 322, "FP8 128 32 x 4096", tensor=8, pipeline=8, virtual=12
    ),
    _seconds(_D, L8, 12.91, "bf16 8 128 x 8192", context=2),
    _seconds(_D, L8, 9.67, "FP8 8 128 x 8192", context=2),
    _seconds(_D, L8, 9.82, "FP8 128 2048 x 8192", context=2),
    _seconds(_D, L70, 14.72, "bf16 64 128 x 8192", **TP4PP4),
    _seconds(_D, L70, 11.01, "FP8 64 128 x 8192", **TP4PP4),
    _seconds(_D, L70, 14.98, "bf16 2048 4096 x 8192", **TP4PP4),
    _seconds(_D, L405, 17.20, "bf16 576 252 x 8192", **TP8PP9),
    _seconds(_D, L405, 11.24, "FP8 576 252 x 8192", **TP8PP9),
    _seconds(_D, "Llama 3.1 405B, 7 layers", 8.85, "bf16 32 126 x 8192", tensor=8, context=2),
    _seconds(_D, "Llama 3.1 405B, 7 layers", 5.80, "FP8 32 126 x 8192", tensor=8, context=2),
    _seconds(_D, G175, 8.309, "bf16 128 256 x 2048", **GPT),
    _seconds(_D, G175, 5.626, "FP8 128 256 x 2048", **GPT),
    _seconds("DGXC 24.12", N15, 2.845, "bf16 64 256 x 4096", **N15L),
    _seconds("DGXC 24.12", N15, 2.048, "FP8 64 256 x 4096", **N15L),
    _tokens("Bridge 25.11", L8, 14451, "FP8 8 128 x 8192"),
    _tokens("Bridge 25.11", L70, 1602, "FP8 64 128 x 8192", **TP4PP8),
    _tokens("Bridge 26.04.01", L70, 1664, "FP8 64 256 x 8192", **TP4PP8, chunks=BALANCED),
    _tokens("Bridge 26.06", L70, 1638, "FP8 32 32 x 4096", tensor=4, pipeline=4, virtual=5),
    _tokens("Bridge 25.11", L405, 292, "FP8 1024 512 x 8192", **TP8PP8),
    _tokens("Bridge 26.04.01", L405, 328, "FP8 1024 1536 x 8192", **TP8PP8),
    PublishedRun(
        source="MEDITRON",
        model="MEDITRON-70B",
        precision="bf16",
        gpus=128,
        batch=512,
        length=4096,
        micro=2,
        tensor=8,
        pipeline=8,
        tokens=40200 / 128,
        gpu="a100-80gb",
        training={"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
        overlap=False,
    ),
]


OTHER_ENGINES = [
    _tokens("torchtitan, 8 H200 nodes", L8, 10753, "FP8 64 128 x 8192", micro=2, gpu="h200"),
    _tokens("torchtitan, 500 W H100", L8, 6667, "bf16 8 16 x 8192", micro=2),
    _tokens("torchtitan, 500 W H100", L8, 8532, "FP8 8 16 x 8192", micro=2),
    _tokens("NeMo AutoModel", L70, 867, "bf16 64 128 x 8192"),
]
"""Other programs, which shard weights with PyTorch's FSDP; planned as data parallelism."""


def _long(model_tflops: float, sizes: str, **layout: Any) -> PublishedRun:
    """Return a run with its model TFLOP/s/GPU, which count masked attention scores as others do."""
    run = _tokens("NeMo 24.03", "Llama 2 7B", 0.0, sizes, **layout)
    model = run.architecture
    attention = model.num_layers * model.attention_flops_per_token(run.length)
    flops = model.flops_per_token(run.length) + attention
    return dataclasses.replace(run, tokens=model_tflops * 1e12 / flops)


LONG_SEQUENCES = [
    _long(660, "FP8 16 256 x 16384", tensor=2),
    _long(610, "FP8 32 128 x 32768", tensor=2, context=2),
    _long(574, "FP8 64 64 x 65536", tensor=4, context=2),
    _long(555, "FP8 128 32 x 131072", tensor=4, context=4),
    _long(549, "FP8 256 16 x 262144", tensor=4, context=8),
]
"""Of NVIDIA/NeMo, docs/source/performance/performance_long_sequence.md; looked up after the fit."""


Q30 = "Qwen3 30B-A3B"
Q235 = "Qwen3 235B-A22B"
OSS = "gpt-oss 120B"
_ACT = {"recompute_granularity": "selective", "recompute_modules": ["moe_act"]}
_OSS: dict[str, Any] = {"pipeline": 4, "expert": 8, "training": _ACT}
# 94 layers among 32 chunks
_Q235: dict[str, Any] = {
    "tensor": 2,
    "pipeline": 8,
    "virtual": 4,
    "chunks": "Et*2|(t*3|)*30t*2L",
    "overlap": False,
}
_EP32 = _Q235 | {"expert": 32}
_PP2EP8: dict[str, Any] = {"pipeline": 2, "expert": 8, "dispatch_overlap": True}
_BRIDGE = "Bridge 08/2026"
EXPERT_RUNS = [
    _seconds(_BRIDGE, Q30, 45.65, "bf16 16 1024 x 4096", expert=16),
    _tokens("Bridge 25.11", OSS, 5630, "bf16 64 512 x 4096", micro=4, **_OSS),
    _tokens("Bridge 26.04.01", OSS, 5824, "bf16 64 1280 x 4096", **_OSS),
    _tokens("Bridge 25.11", Q235, 1575, "FP8 256 2048 x 4096", dispatch_overlap=True, **_EP32),
    _tokens("Bridge 26.04.01", Q235, 1712, "FP8 256 8192 x 4096", dispatch_overlap=True, **_EP32),
    _seconds(
        "Model zoo",
        Q235,
        24.2,
        "bf16 256 2048 x 4096",
        tensor=2,
        pipeline=32,
        virtual=3,
        expert=8,
        chunks="E|(t|)*94L",
        training=_ACT,
        overlap=False,
    ),
]
"""Mixtures of experts with the alltoall dispatcher."""
SLOW_EXPERT_RUNS = [
    _tokens("Bridge 25.11", Q30, 5275, "FP8 16 512 x 4096", micro=2, virtual=24, **_PP2EP8),
    _tokens("Bridge 26.02", Q30, 5113, "FP8 16 1024 x 4096", virtual=12, **_PP2EP8),
]
"""With alltoall in FP8; the next release replaced it by DeepEP and was 77% faster."""
OTHER_DISPATCHERS = [
    _tokens("Bridge 26.02.01, DeepEP", Q30, 9058, "FP8 16 1024 x 4096", virtual=12, **_PP2EP8),
    _tokens("Bridge 26.04.01, HybridEP", Q30, 8960, "FP8 16 1024 x 4096", expert=16),
    _seconds(f"{_BRIDGE}, HybridEP", Q30, 24.71, "bf16 16 1024 x 4096", expert=16),
    _seconds(
        f"{_BRIDGE}, HybridEP",
        Q30,
        20.147,
        "bf16 16 1024 x 4096",
        expert=16,
        dispatch_overlap=True,
    ),
    _seconds("Model zoo, DeepEP", Q235, 19.7, "bf16 256 2048 x 4096", training=_ACT, **_EP32),
    _seconds(
        "Model zoo, DeepEP",
        Q235,
        29.0,
        "bf16 256 2048 x 4096",
        **(_Q235 | {"tensor": 4, "expert": 8}),
    ),
    _seconds("NeMo AutoModel, DeepEP", Q30, 21.773, "bf16 8 512 x 4096", micro=4, expert=8),
]
"""Dispatchers that Galen lacks, planned as alltoall; the last also with another engine (FSDP)."""


def groups() -> dict[str, list[PublishedRun]]:
    """Return the runs by their use."""
    return {
        "fitted": [run for run in RUNS if not run.held_out],
        "held out": [run for run in RUNS if run.held_out],
        "other engines": OTHER_ENGINES,
        "long sequences": LONG_SEQUENCES,
        "experts, fitted": [run for run in EXPERT_RUNS if not run.held_out],
        "experts, held out": [run for run in EXPERT_RUNS if run.held_out],
        "experts, alltoall in FP8": SLOW_EXPERT_RUNS,
        "experts, other dispatchers": OTHER_DISPATCHERS,
    }


PRIOR = {
    "gemm_bf16": 0.6,
    "gemm_fp8": 0.6,
    "attention": 0.5,
    "overlap_fraction": 0.8,
    "layer_overhead": 300e-6,
}
WIDTHS = {
    "gemm_bf16": 0.1,
    "gemm_fp8": 0.1,
    "attention": 0.1,
    "overlap_fraction": 0.1,
    "layer_overhead": 100e-6,
}
ERROR = 0.03
"""Relative, of a published figure: releases of one program differ by as much and more."""


def fit(runs: list[PublishedRun]) -> Efficiencies:
    """Return the efficiencies closest to the published figures and to PRIOR."""
    import numpy
    from scipy.optimize import least_squares

    prior = numpy.array(list(PRIOR.values()))
    widths = numpy.array(list(WIDTHS.values()))

    def efficiencies(deviations: Any) -> Efficiencies:
        values = map(float, prior + widths * deviations)
        return Efficiencies(**dict(zip(PRIOR, values, strict=True)))

    def residuals(deviations: Any) -> Any:
        values = efficiencies(deviations)
        return [*(math.log1p(run.error(values)) / ERROR for run in runs), *deviations]

    return efficiencies(least_squares(residuals, 0 * prior).x)


def fit_router(runs: list[PublishedRun]) -> float:
    """Return the seconds of `router_overhead` closest to the published figures."""
    from scipy.optimize import minimize_scalar

    def squares(milliseconds: float) -> float:
        values = dataclasses.replace(EFFICIENCIES, router_overhead=milliseconds / 1000)
        return sum(math.log1p(run.error(values)) ** 2 for run in runs)

    return float(minimize_scalar(squares, bounds=(0, 20), method="bounded").x) / 1000


def table(runs: list[PublishedRun], efficiencies: Efficiencies) -> list[str]:
    """Return the runs with their errors as a Markdown table."""
    lines = [
        "| source | model | precision | GPUs | layout | length | published | planned | error |",
        "|---" * 9 + "|",
    ]
    for run in runs:
        lines.append(
            f"| {run.source} | {run.model} | {run.precision} | {run.gpus:,} | {run.layout} |"
            f" {run.length:,} | {run.tokens:,.0f} | {run.planned(efficiencies):,.0f} |"
            f" {run.error(efficiencies):+.1%} |"
        )
    return lines


def root_mean_square(runs: list[PublishedRun], efficiencies: Efficiencies) -> float:
    """Return the root mean square of the relative errors."""
    return math.sqrt(sum(run.error(efficiencies) ** 2 for run in runs) / len(runs))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    cli.ArgumentParser(__doc__).parse_args(argv)
    runs_by_use = groups()
    fitted = fit(runs_by_use["fitted"])
    fitted = dataclasses.replace(fitted, router_overhead=fit_router(runs_by_use["experts, fitted"]))
    print(f"fitted: {fitted}\nused:   {EFFICIENCIES}")
    for name, runs in runs_by_use.items():
        error = root_mean_square(runs, EFFICIENCIES)
        print(f"\n{name}: {len(runs)} runs, root mean square of the errors {error:.1%}\n")
        print("\n".join(table(runs, EFFICIENCIES)))
    error = root_mean_square(LONG_SEQUENCES, LONG_EFFICIENCIES)
    print(f"\nlong sequences with slower attention: {error:.1%}")


if __name__ == "__main__":
    cli.run(main)
