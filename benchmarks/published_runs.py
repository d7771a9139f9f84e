"""Published runs of dense models, with their layouts and speed.

Sources of the runs, read in November 2026, with the layouts as published:

- NeMo 24.07: NVIDIA/NeMo, docs/source/performance/performance_summary.md (DGX-H100, FP8);
- DGXC 24.09, DGXC 24.12: NVIDIA/dgxc-benchmarking, README files of llama3.1, nemo_megatron and
  nemotron (step times on H100);
- Bridge: NVIDIA-NeMo/Megatron-Bridge, docs/performance-summary-archive.md (DGX-H100, FP8 with
  current scaling), by release of the container;
- Bridge of August 2026: the same repository, docs/training/moe-optimization.md and the skills
  nemo-mbridge-perf-moe-hardware-configs and -dispatcher-selection (Qwen3-30B-A3B on 16 H100);
  dispatchers by release: scripts/performance/configs at v0.2.0, v0.3.0 and v0.3.1;
- NeMo AutoModel: NVIDIA-NeMo/Automodel, docs/performance-summary.md;
- Model zoo: yanring/Megatron-MoE-ModelZoo, best_practice/qwen3/readme.md (256 H100);
- MEDITRON: arXiv 2311.16079 (A100-80GB, Megatron-LLM).

All runs of mixtures of experts force balanced routing. Runs that Galen's pretraining cannot express
are left out: LoRA, latent attention (DeepSeek-V3), Mamba layers (Nemotron 3), and those that drop
tokens (NeMo's Mixtral and Grok 1, Megatron-Bridge 25.09), which need not wait for their counts.
"""

import dataclasses
from typing import Any

from benchmarks.published_models import HELD_OUT_MODELS, MODELS
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Data, Model, Optimizer, Parallel, Training
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.throughput_model import Efficiencies, step_time


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


def tokens_run(source: str, model: str, tokens: float, sizes: str, **layout: Any) -> PublishedRun:
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


def seconds_run(source: str, model: str, seconds: float, sizes: str, **layout: Any) -> PublishedRun:
    """Return a run with the seconds of its step."""
    run = tokens_run(source, model, 0.0, sizes, **layout)
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
    tokens_run("NeMo 24.07", "GPT-3 5B", 22521, "FP8 64 2048 x 2048", micro=4),
    tokens_run("NeMo 24.07", "GPT-3 20B", 5851, "FP8 64 256 x 2048", micro=2, tensor=2),
    tokens_run(
        "NeMo 24.07", G175, 782, "FP8 512 2048 x 2048", micro=2, tensor=4, pipeline=8, virtual=6
    ),
    tokens_run("NeMo 24.07", "Llama 2 7B", 16847, "FP8 8 128 x 4096"),
    tokens_run("NeMo 24.07", "Llama 2 13B", 8646, "FP8 16 128 x 4096", pipeline=4, virtual=10),
    tokens_run(
        "NeMo 24.07", "Llama 2 70B", 1707, "FP8 64 128 x 4096", tensor=4, pipeline=4, virtual=20
    ),
    tokens_run("NeMo 24.07", "Nemotron 8B", 12701, "FP8 64 256 x 4096", micro=4, tensor=2),
    tokens_run(
        "NeMo 24.07",
        "Nemotron 22B",
        4256,
        "FP8 64 256 x 4096",
        micro=2,
        tensor=2,
        pipeline=4,
        virtual=10,
    ),
    tokens_run(
        "NeMo 24.07", "Nemotron-4 340B", 322, "FP8 128 32 x 4096", tensor=8, pipeline=8, virtual=12
    ),
    seconds_run(_D, L8, 12.91, "bf16 8 128 x 8192", context=2),
    seconds_run(_D, L8, 9.67, "FP8 8 128 x 8192", context=2),
    seconds_run(_D, L8, 9.82, "FP8 128 2048 x 8192", context=2),
    seconds_run(_D, L70, 14.72, "bf16 64 128 x 8192", **TP4PP4),
    seconds_run(_D, L70, 11.01, "FP8 64 128 x 8192", **TP4PP4),
    seconds_run(_D, L70, 14.98, "bf16 2048 4096 x 8192", **TP4PP4),
    seconds_run(_D, L405, 17.20, "bf16 576 252 x 8192", **TP8PP9),
    seconds_run(_D, L405, 11.24, "FP8 576 252 x 8192", **TP8PP9),
    seconds_run(_D, "Llama 3.1 405B, 7 layers", 8.85, "bf16 32 126 x 8192", tensor=8, context=2),
    seconds_run(_D, "Llama 3.1 405B, 7 layers", 5.80, "FP8 32 126 x 8192", tensor=8, context=2),
    seconds_run(_D, G175, 8.309, "bf16 128 256 x 2048", **GPT),
    seconds_run(_D, G175, 5.626, "FP8 128 256 x 2048", **GPT),
    seconds_run("DGXC 24.12", N15, 2.845, "bf16 64 256 x 4096", **N15L),
    seconds_run("DGXC 24.12", N15, 2.048, "FP8 64 256 x 4096", **N15L),
    tokens_run("Bridge 25.11", L8, 14451, "FP8 8 128 x 8192"),
    tokens_run("Bridge 25.11", L70, 1602, "FP8 64 128 x 8192", **TP4PP8),
    tokens_run("Bridge 26.04.01", L70, 1664, "FP8 64 256 x 8192", **TP4PP8, chunks=BALANCED),
    tokens_run("Bridge 26.06", L70, 1638, "FP8 32 32 x 4096", tensor=4, pipeline=4, virtual=5),
    tokens_run("Bridge 25.11", L405, 292, "FP8 1024 512 x 8192", **TP8PP8),
    tokens_run("Bridge 26.04.01", L405, 328, "FP8 1024 1536 x 8192", **TP8PP8),
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
    tokens_run("torchtitan, 8 H200 nodes", L8, 10753, "FP8 64 128 x 8192", micro=2, gpu="h200"),
    tokens_run("torchtitan, 500 W H100", L8, 6667, "bf16 8 16 x 8192", micro=2),
    tokens_run("torchtitan, 500 W H100", L8, 8532, "FP8 8 16 x 8192", micro=2),
    tokens_run("NeMo AutoModel", L70, 867, "bf16 64 128 x 8192"),
]
"""Other programs, which shard weights with PyTorch's FSDP; planned as data parallelism."""


def _long(model_tflops: float, sizes: str, **layout: Any) -> PublishedRun:
    """Return a run with its model TFLOP/s/GPU, which count masked attention scores as others do."""
    run = tokens_run("NeMo 24.03", "Llama 2 7B", 0.0, sizes, **layout)
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
