"""Print the environment of `make gpu-check`, or what it lacks (exit code 2).

It starts without any other package.

    python benchmarks/gpu_environment.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

INSTALL = (
    "\nOn your own machine: python3.12 -m venv .venv;"
    " .venv/bin/pip install -r requirements.txt; then follow requirements-gpu.txt"
    "\nIn NVIDIA's PyTorch container (it has PyTorch, Transformer Engine and apex):"
    " install Galen as the RUN lines of Dockerfile do"
    "\nAnother Python than .venv's or python3: make gpu-check GPU_PYTHON=/path/to/python"
)


class Missing(Exception):
    """A requirement is missing."""


def main() -> None:
    """Run the command."""
    try:
        for line in environment():
            print(line, flush=True)
    except Missing as error:
        print(f"error: {sys.executable}: {error}", file=sys.stderr)
        sys.exit(2)


def environment() -> list[str]:
    """Return the environment, in lines.

    Raises:
        Missing: names the missing requirement.
    """
    try:
        from galen import manifest
        from galen.errors import UsageError
        from megatron_ext import bootstrap

        bootstrap()
        from megatron_ext.data import tokenized  # noqa: F401  # all that a run imports
        from megatron_ext.hardware import platforms  # all that a run imports
        from megatron_ext.training import optimizer  # noqa: F401  # all that a run imports
    except ImportError as error:
        raise Missing(f"{error}{INSTALL}") from None
    import torch

    try:
        torch.cuda.init()
        platform = platforms.current_platform()
    except UsageError as error:
        raise Missing(str(error)) from None
    except (RuntimeError, AssertionError) as error:
        raise Missing(f"PyTorch {torch.__version__} finds no usable GPU: {error}") from None
    if not platform.transformer_engine:
        raise Missing(f"Transformer Engine is not installed{INSTALL}")
    _compile()
    memory = torch.cuda.get_device_properties(platform.device).total_memory / 2**30
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions().items())
    return [
        (
            f"{torch.cuda.device_count()} x {platform.device_name}, {memory:.0f} GiB each,"
            f" {platform.name}"
        ),
        versions,
    ]


def _compile() -> None:
    """Run a compiled function, as the core's fused ones are."""
    import torch

    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device="cuda"))
    except Exception as error:  # a compiler's error can be any
        raise Missing(
            "torch.compile fails; it needs a C compiler and Python's headers (gcc, python3-dev):"
            f" {error}"
        ) from None


if __name__ == "__main__":
    main()
