"""Plan every shipped recipe under every shipped layout, beside the fastest layout found.

    python benchmarks/shipped_layouts.py

Prints the table of docs/planning.md, "Shipped layouts". The fastest layout has the recipe's batch,
precision and optimizer, and may recompute and change the micro-batch; it fits into memory.
"""

from pathlib import Path

from galen import cli
from galen.recipe import load
from megatron_ext.config.architecture import read_architecture
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
HEADS = (
    "| recipe | layout | GPUs | tokens/s/GPU | MFU | GiB | days | fastest found |",
    "|---" * 8 + "|",
)


def cells(model: str, layout: str) -> str:
    """Return the planned figures of a recipe under a layout, as the beginning of a table's row."""
    size = RECIPES[model]
    one = _estimate(model, layout)
    return (
        f"| {model} | {size}_{layout} | {GPU_COUNTS[size]} |"
        f" {one.tokens_per_second_per_gpu:,.0f} | {one.mfu:.1%} | {one.memory / 2**30:.1f} |"
        f" {one.cost.days:,.1f} |"
    )


def row(model: str, layout: str) -> str:
    """Return a table's row, with the fastest layout found."""
    recipe = _recipe(model, layout)
    gpus = GPU_COUNTS[RECIPES[model]]
    architecture = read_architecture(ROOT / str(recipe.model.architecture))
    (fastest,) = best(search(architecture, recipe, gpus, GPUS[LAYOUTS[layout]]), 1)
    own = _estimate(model, layout)
    gain = fastest.tokens_per_second_per_gpu / own.tokens_per_second_per_gpu - 1
    return f"{cells(model, layout)} {_layout(fastest, gpus)}: {gain:+.1%} |"


def _recipe(model: str, layout: str) -> Recipe:
    examples = ROOT / "examples/pretrain"
    file = examples / f"layouts/{RECIPES[model]}_{layout}.yaml"
    return load(Recipe, examples / f"{model}.yaml", [str(file)])


def _estimate(model: str, layout: str) -> Estimate:
    recipe = _recipe(model, layout)
    architecture = read_architecture(ROOT / str(recipe.model.architecture))
    return estimate(architecture, recipe, GPU_COUNTS[RECIPES[model]], GPUS[LAYOUTS[layout]])


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
    if training.recompute_granularity:
        words.append("recompute")
    return " ".join(words)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    cli.ArgumentParser(__doc__).parse_args(argv)
    print("\n".join(HEADS))
    for model in RECIPES:
        for layout in LAYOUTS:
            print(row(model, layout), flush=True)


if __name__ == "__main__":
    cli.run(main)
