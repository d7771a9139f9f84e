"""Print the environment of `make gpu-check`, what it lacks, and which checks that disables.

It starts without any other package. Exit code 2 if nothing can run.

    python benchmarks/gpu_environment.py
    python benchmarks/gpu_environment.py --platform cpu --output environment.json
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from galen import cli, manifest  # noqa: E402
from galen.atomic import write_text  # noqa: E402
from galen.errors import UsageError  # noqa: E402

INSTALL = (
    "On your own machine: python3.12 -m venv .venv;"
    " .venv/bin/pip install -r requirements.txt; then follow requirements-gpu.txt",
    "In NVIDIA's PyTorch container (it has PyTorch, Transformer Engine and apex):"
    " install Galen as the RUN lines of Dockerfile do",
    "Another Python than .venv's or python3: make gpu-check GPU_PYTHON=/path/to/python",
)
PACKAGES = {
    "torch": "torch",
    "megatron": "megatron-core",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "psutil": "psutil",
    "tqdm": "tqdm",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "jinja2": "jinja2",
    "tensorboard": "tensorboard",
}
"""Distributions by the names of their modules: all that a check imports."""
_SUMMARY = ("python", "torch", "megatron-core", "transformer-engine", "cuda", "nccl", "driver")
"""Versions that are printed; the JSON has all."""
FP8_RECIPES = ("delayed", "tensorwise", "blockwise")


class Missing(UsageError):
    """Nothing can run; the message names what is missing."""


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--platform", choices=("cuda", "cpu"), default="cuda", help="[cuda]")
    parser.add_argument("--output", type=Path, help="also write the facts to this JSON file")
    arguments = parser.parse_args(argv)
    facts = environment(arguments.platform)
    if arguments.output:
        write_text(arguments.output, json.dumps(facts, indent=1) + "\n")
    print(facts["summary"])
    for problem in facts["problems"]:
        print(problem)


def environment(kind: str) -> dict[str, Any]:
    """Return the facts of a platform, cuda or cpu.

    They are versions and hardware; `problems`, advice on what is missing; `unsupported`, the reason
    for each feature that checks may require and that is missing.

    Raises:
        Missing: nothing can run.
    """
    missing = [name for module, name in PACKAGES.items() if not _is_installed(module)]
    if missing:
        advice = "\n".join(INSTALL)
        raise Missing(f"{sys.executable}: not installed: {', '.join(missing)}\n{advice}")
    _import_all()
    import torch

    from megatron_ext.hardware import platforms

    if kind == "cuda":
        _start_cuda()
    current = platforms.current_platform()
    gpus = torch.cuda.device_count() if kind == "cuda" else 2
    facts: dict[str, Any] = {
        "platform": current.name,
        "device": current.device_name,
        "gpus": gpus,
        "memory_gib": round(current.memory / 2**30, 1),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {**manifest.versions(), **(_cuda_versions() if kind == "cuda" else {})},
        "commit": _commit(),
        "problems": [],
        "unsupported": {},
    }
    named = ", ".join(
        f"{name} {facts['versions'][name]}" for name in _SUMMARY if facts["versions"].get(name)
    )
    facts["summary"] = (
        f"{gpus} x {facts['device']}, {facts['memory_gib']:.0f} GiB, {current.name}; {named}"
    )
    _find_unsupported(current, facts)
    return facts


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # imported already, and replaced
        return module in sys.modules


def _import_all() -> None:
    """Import what a run imports.

    Raises:
        Missing: an installed package does not load.
    """
    try:
        from megatron_ext import bootstrap

        bootstrap()
        from megatron_ext.data import tokenized  # noqa: F401
        from megatron_ext.training import optimizer  # noqa: F401
    except ImportError as error:
        advice = "\n".join(INSTALL)
        raise Missing(f"{sys.executable}: {error}\n{advice}") from None


def _start_cuda() -> None:
    """Initialize CUDA.

    Raises:
        Missing: there is no usable GPU.
    """
    import torch

    try:
        torch.cuda.init()
        torch.ones(8, device="cuda").sum().item()
    except (RuntimeError, AssertionError) as error:
        raise Missing(
            f"{sys.executable}: PyTorch {torch.__version__} finds no usable GPU: {error}. On CPUs:"
            ' make gpu-check GPU_ARGS="--platform cpu"'
        ) from None


def _cuda_versions() -> dict[str, str]:
    """Return the versions of CUDA, its libraries and the driver, and the compute capability."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    versions = {"cuda": str(torch.version.cuda), "compute capability": f"{major}.{minor}"}
    versions["cudnn"] = str(torch.backends.cudnn.version())
    versions["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        versions["driver"] = done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        versions["driver"] = "unknown"
    return versions


def _commit() -> str | None:
    """Return the commit of the working tree, with + if it was changed; None without git."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def _find_unsupported(current: Any, facts: dict[str, Any]) -> None:
    """Add to the facts which features are unsupported, and the remedies."""
    unsupported = facts["unsupported"]
    problems = facts["problems"]
    for gpus in (2, 8):
        if facts["gpus"] < gpus:
            unsupported[f"{gpus}_gpus"] = f"it needs {gpus} GPUs; there are {facts['gpus']}"
    if not current.transformer_engine:
        unsupported["transformer_engine"] = "it needs Transformer Engine, which is not installed"
    for name in FP8_RECIPES:
        if reason := _fp8_refusal(current, name):
            unsupported[f"fp8_{name}"] = reason
    if current.device.type != "cuda":
        return
    if not current.transformer_engine:
        problems += ["Transformer Engine is not installed: FP8 is not checked", *INSTALL[:2]]
    if refusal := _compile_refusal():
        problems.append(refusal)


def _fp8_refusal(current: Any, fp8_recipe: str) -> str | None:
    """Return why this platform does not train by an FP8 recipe, or None."""
    from megatron_ext.config.recipe import Recipe
    from megatron_ext.config.sections import Data, Model, Optimizer, Training

    training: dict[str, Any] = {"fp8_format": "hybrid", "fp8_recipe": fp8_recipe}
    recipe = Recipe(
        output="none",
        model=Model(checkpoint="none"),
        data=Data(train=["none"]),
        training=Training(train_iters=1, global_batch_size=1, eval_iters=0, **training),
        optimizer=Optimizer(lr=1e-3),
    )
    try:
        current.check(recipe)
    except UsageError as error:
        return str(error)
    return None


def _compile_refusal() -> str | None:
    """Return why a compiled function, as the core's fused ones are, fails; None if it works."""
    import torch

    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device="cuda"))
    except Exception as error:  # a compiler's error can be any
        return (
            "torch.compile fails; it needs a C compiler and Python's headers (gcc, python3-dev):"
            f" {error}"
        )
    return None


if __name__ == "__main__":
    cli.run(main)
