"""Fit the planner's speed model to published runs, and its errors for the runs held out.

    python benchmarks/planner_fit.py

Which runs are held out was decided by model before the first fit. Five constants (`Efficiencies` of
the throughput model) are fitted to the others by least squares of the relative errors, with priors
around values known from kernels alone: half to 60% of the peak for matrix products and attention,
80% of overlapped communication hidden, and for a layer about 100 kernels with 3 µs of launch, ramp
and tail each. One more, `router_overhead`, is fitted to mixtures of experts, without a prior, the
others fixed. `EFFICIENCIES` are the results, rounded.

The runs, with their sources and layouts, are in `benchmarks/published_runs.yaml`.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import yaml

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

RUNS = Path(__file__).with_name("published_runs.yaml")
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


def _run(fields: dict[str, Any]) -> PublishedRun:
    """Return a run whose speed is given as tokens/s/GPU, seconds or model TFLOP/s/GPU."""
    seconds = fields.pop("seconds", None)
    tflops = fields.pop("model_tflops", None)
    run = PublishedRun(**{"tokens": 0.0, **fields})
    if seconds is not None:
        return dataclasses.replace(run, tokens=run.batch * run.length / seconds / run.gpus)
    if tflops is not None:
        model = run.architecture
        # which count masked attention scores
        attention = model.num_layers * model.attention_flops_per_token(run.length)
        flops = model.flops_per_token(run.length) + attention
        return dataclasses.replace(run, tokens=tflops * 1e12 / flops)
    return run


def groups() -> dict[str, list[PublishedRun]]:
    """Return the runs by their use."""
    content = yaml.safe_load(RUNS.read_text(encoding="utf-8"))
    runs = {name: [_run(fields) for fields in listed] for name, listed in content.items()}
    return {
        "fitted": [run for run in runs["dense"] if not run.held_out],
        "held out": [run for run in runs["dense"] if run.held_out],
        "other engines": runs["other_engines"],
        "long sequences": runs["long_sequences"],
        "experts, fitted": [run for run in runs["experts"] if not run.held_out],
        "experts, held out": [run for run in runs["experts"] if run.held_out],
        "experts, alltoall in FP8": runs["experts_in_fp8"],
        "experts, other dispatchers": runs["other_dispatchers"],
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
    error = root_mean_square(runs_by_use["long sequences"], LONG_EFFICIENCIES)
    print(f"\nlong sequences with slower attention: {error:.1%}")


if __name__ == "__main__":
    cli.run(main)
