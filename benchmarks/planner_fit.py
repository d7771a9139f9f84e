"""Accuracy of the planner's speed model on a published figure not used to fit its constants.

    python benchmarks/planner_fit.py

Five fractions of the hardware's peaks (`Efficiencies` of the throughput model) represent the speed
of kernels. The few published figures do not determine them: each is fitted by least squares with a
prior of width 0.1 around a round value chosen before, 0.6 of the peak for matrix products, 0.5 for
attention, 0.8 for bandwidth and for overlap. Each line fits them to all other figures and predicts
the named one.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from galen import cli
from megatron_ext.config.architecture import Architecture, read_architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Data, Model, Optimizer, Parallel, Training
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.layout_search import Estimate, estimate
from megatron_ext.planner.throughput_model import EFFICIENCIES, Efficiencies

ARCHITECTURES = Path(__file__).parents[1] / "examples/pretrain/architectures"
BEFORE = Efficiencies(
    gemm_bf16=0.6, gemm_fp8=0.6, attention=0.5, bandwidth=0.8, overlap_fraction=0.8
)
WIDTH = 0.1  # of the prior around BEFORE
ERROR = 0.03  # relative, of a published figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure and its run."""

    architecture: Architecture
    recipe: Recipe
    gpus: int
    gpu: str = "h100-80gb"
    tokens: float
    """Tokens/s/GPU."""

    def error(self, efficiencies: Efficiencies) -> float:
        """Return the relative error of the model."""
        return self.estimate(efficiencies).tokens_per_second_per_gpu / self.tokens - 1

    def estimate(self, efficiencies: Efficiencies = EFFICIENCIES) -> Estimate:
        """Return the planner's estimate of the run."""
        return estimate(self.architecture, self.recipe, self.gpus, GPUS[self.gpu], efficiencies)


def llama3(layers: int, hidden: int, mlp: int, heads: int) -> Architecture:
    """Return a Llama 3 of the size."""
    return Architecture(
        family="llama",
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=mlp,
        num_attention_heads=heads,
        num_query_groups=8,
        kv_channels=128,
        vocab_size=128256,
        max_position_embeddings=8192,
        rotary_base=5e5,
        layernorm_epsilon=1e-5,
        share_embeddings_and_output_weights=False,
    )


def recipe(
    batch: int,
    fp8: bool = True,
    length: int = 8192,
    tensor: int = 1,
    pipeline: int = 1,
    virtual: int | None = None,
    context: int = 1,
    overlap: bool = True,
    **training: Any,
) -> Recipe:
    """Return a run of these sizes, with NVIDIA's usual options."""
    return Recipe(
        output="unused",
        model=Model(checkpoint="unused"),
        data=Data(train=["unused"], validation=["unused"], seq_length=length),
        training=Training(
            train_iters=23000,
            global_batch_size=batch,
            fp8_format="hybrid" if fp8 else None,
            fp8_recipe="tensorwise",
            **training,
        ),
        optimizer=Optimizer(lr=1e-4),
        parallel=Parallel(
            tensor_model_parallel_size=tensor,
            pipeline_model_parallel_size=pipeline,
            virtual_pipeline_model_parallel_size=virtual,
            context_parallel_size=context,
            sequence_parallel=tensor > 1,
            tp_comm_overlap=tensor > 1 and overlap,
            overlap_grad_reduce=True,
        ),
    )


def published() -> dict[str, Published]:
    """Return the figures to which the constants are fitted.

    The layouts of 8B and 405B are not published with the figures: plain data parallelism, and the
    usual TP8 PP8 CP2 (with 128 instead of 126 layers, so that they divide). Megatron-LM's is a
    fraction of the peak, 47% to 48%.
    """
    large = llama3(80, 8192, 28672, 64)
    bf16 = recipe(512, fp8=False, tensor=4, pipeline=8, virtual=5)
    meditron = recipe(
        512,
        fp8=False,
        length=4096,
        tensor=8,
        pipeline=8,
        overlap=False,
        micro_batch_size=2,
        recompute_granularity="selective",
        recompute_modules=["core_attn"],
    )
    return {
        "Llama 3 8B, FP8, 8 H100": Published(
            architecture=llama3(32, 4096, 14336, 32), recipe=recipe(128), gpus=8, tokens=14451
        ),
        "Llama 3 70B, FP8, 64 H100": Published(
            architecture=large,
            recipe=recipe(128, tensor=4, pipeline=8, virtual=5),
            gpus=64,
            tokens=1664,
        ),
        "Llama 3.1 405B, FP8, 1,024 H100": Published(
            architecture=llama3(128, 16384, 53248, 128),
            recipe=recipe(512, tensor=8, pipeline=8, virtual=8, context=2),
            gpus=1024,
            tokens=328,
        ),
        "Megatron-LM, bf16, 64 H100 (70B)": Published(
            architecture=large,
            recipe=bf16,
            gpus=64,
            tokens=0.475 * GPUS["h100-80gb"].bf16_flops / large.flops_per_token(8192),
        ),
        "MEDITRON-70B, bf16, 128 A100": Published(
            architecture=read_architecture(ARCHITECTURES / "meditron_70b.json"),
            recipe=meditron,
            gpus=128,
            gpu="a100-80gb",
            tokens=40200 / 128,
        ),
    }


def fit(figures: list[Published]) -> Efficiencies:
    """Return the efficiencies closest to the figures and to BEFORE."""
    import numpy
    from scipy.optimize import least_squares

    start = numpy.array(dataclasses.astuple(BEFORE))

    def residuals(values: Any) -> Any:
        efficiencies = Efficiencies(**dict(zip(names, values, strict=True)))
        return [
            *(math.log1p(one.error(efficiencies)) / ERROR for one in figures),
            *((values - start) / WIDTH),
        ]

    names = [field.name for field in dataclasses.fields(Efficiencies)]
    fitted = least_squares(residuals, start, bounds=(0.05, 0.99)).x
    return Efficiencies(**dict(zip(names, map(float, fitted), strict=True)))


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    figures = published()
    result = []
    everything = fit(list(figures.values()))
    for name, one in figures.items():
        others = fit([other for key, other in figures.items() if key != name])
        result.append(
            {
                "figure": name,
                "planner": one.error(EFFICIENCIES),
                "nothing fitted": one.error(BEFORE),
                "all fitted": one.error(everything),
                "fitted to the others": one.error(others),
                "efficiencies": dataclasses.asdict(others),
            }
        )
    if arguments.json:
        print(json.dumps(result, indent=1))
        return None
    heads = ("planner", "nothing fitted", "all fitted", "fitted to the others")
    print(f"{'relative error of tokens/s':34}" + "".join(f"{head:>22}" for head in heads))
    for line in result:
        print(f"{line['figure']:34}" + "".join(f"{line[head]:>+22.1%}" for head in heads))
    return None


if __name__ == "__main__":
    cli.run(main)
