"""Plan every shipped recipe under every shipped layout, beside the fastest layout found.

    python benchmarks/shipped_layouts.py

Prints the table of docs/planning.md, "Shipped layouts". The fastest layout has the recipe's batch,
precision and optimizer, and may recompute and change the micro-batch; it fits into memory.
"""

import dataclasses
from pathlib import Path

from galen import cli
from galen.recipe import load
from megatron_ext.config.architecture import Architecture, read_architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner import model_state
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.layout_search import Estimate, best, estimate, search

ROOT = Path(__file__).parents[1]
RECIPES = {
    "mmedlm2_1_8b": "2b",
    "meditron_7b": "7b",
    "biomistral_7b": "7b",
    "mmedlm2_7b": "7b",
    "mmed_llama3_8b": "7b",
    "meditron_70b": "70b",
    "mmed_llama3_70b": "70b",
}
"""Size of the layouts of each recipe."""
LAYOUTS = {
    "h100_bf16": "h100-80gb",
    "h100_fp8": "h100-80gb",
    "a100_bf16": "a100-80gb",
    "h200_bf16": "h200",
}
"""GPU type of each layout."""
GPU_COUNTS = {"2b": 8, "7b": 8, "70b": 64}
EXPERT_RUNS = (
    ("30b_a3b_h100_bf16_8gpus", 8),
    ("30b_a3b_h100_bf16", 16),
    ("30b_a3b_h100_bf16_32gpus", 32),
    ("30b_a3b_h100_bf16_32gpus", 64),
)
"""Layouts of `EXPERT_RECIPE`, each on a number of H100."""
EXPERT_RECIPE = "qwen3_30b_a3b"
HEADS = (
    "| recipe | layout | GPUs | tokens/s/GPU | MFU | GiB | days | fastest found |",
    "|---" * 8 + "|",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShippedRun:
    """A recipe under a layout on a number of GPUs."""

    model: str
    layout: str
    """Name of its file."""
    gpus: int
    gpu_name: str

    def recipe(self) -> Recipe:
        """Return the recipe."""
        examples = ROOT / "examples/pretrain"
        file = examples / f"layouts/{self.layout}.yaml"
        return load(Recipe, examples / f"{self.model}.yaml", [str(file)])

    def architecture(self) -> Architecture:
        """Return the model."""
        return read_architecture(ROOT / str(self.recipe().model.architecture))

    def estimate(self) -> Estimate:
        """Return its plan."""
        return estimate(self.architecture(), self.recipe(), self.gpus, GPUS[self.gpu_name])


def runs() -> list[ShippedRun]:
    """Return the shipped recipes under their layouts."""
    dense = [
        ShippedRun(model=model, layout=f"{size}_{layout}", gpus=GPU_COUNTS[size], gpu_name=gpu_name)
        for model, size in RECIPES.items()
        for layout, gpu_name in LAYOUTS.items()
    ]
    return dense + [
        ShippedRun(model=EXPERT_RECIPE, layout=layout, gpus=gpus, gpu_name="h100-80gb")
        for layout, gpus in EXPERT_RUNS
    ]


def cells(run: ShippedRun) -> str:
    """Return the planned figures of a recipe under a layout, as the beginning of a table's row."""
    one = run.estimate()
    return (
        f"| {run.model} | {run.layout} | {run.gpus} |"
        f" {one.tokens_per_second_per_gpu:,.0f} | {one.mfu:.1%} | {one.memory / 2**30:.1f} |"
        f" {one.cost.days:,.1f} |"
    )


def row(run: ShippedRun) -> str:
    """Return a table's row, with the fastest layout found."""
    found = search(run.architecture(), run.recipe(), run.gpus, GPUS[run.gpu_name])
    (fastest,) = best(found, 1)
    own = run.estimate()
    gain = fastest.tokens_per_second_per_gpu / own.tokens_per_second_per_gpu - 1
    return f"{cells(run)} {_layout(fastest, run.gpus)}: {gain:+.1%} |"


def _layout(one: Estimate, gpus: int) -> str:
    parallel = one.recipe.parallel
    training = one.recipe.training
    words = [
        f"TP{parallel.tensor_model_parallel_size}",
        f"PP{parallel.pipeline_model_parallel_size}",
        f"DP{model_state.data_parallel_size(one.recipe, gpus)}",
        f"micro {training.micro_batch_size}",
    ]
    if parallel.virtual_pipeline_model_parallel_size:
        words.insert(2, f"VP{parallel.virtual_pipeline_model_parallel_size}")
    if parallel.expert_model_parallel_size > 1:
        words.insert(-1, f"EP{parallel.expert_model_parallel_size}")
    if training.recompute_granularity:
        words.append(" ".join(["recompute", *(training.recompute_modules or [])]))
    return " ".join(words)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    cli.ArgumentParser(__doc__).parse_args(argv)
    print("\n".join(HEADS))
    for run in runs():
        print(row(run), flush=True)


if __name__ == "__main__":
    cli.run(main)
