"""The full pipeline on real input, as plain commands to copy (examples/demo/stages.yaml).

    python examples/demo/demo.py                                     # what `make demo` runs
    python examples/demo/demo.py --medline my/xml --model my/llama   # own input

After an interruption the same command resumes: stages that are finished and unchanged are skipped.
The last line names the report.
"""

import os
from pathlib import Path

import inputs
import stages

from galen import cli, lock
from galen.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("stages.yaml")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(argv)
    for name in ("medline", "model"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            raise UsageError(f"--{name}: {path} does not exist")
    work = _short(options.work_dir)
    bf16 = _has_bf16()
    variables: dict[str, object] = {
        # of each of the two training processes; torchrun would set one
        "threads": max(1, (os.cpu_count() or 1) // 2),
        "precision": "bf16" if bf16 else "fp32",
        "dtype": "bfloat16" if bf16 else "float32",
        "work": work,
        "cache": _short(options.cache),
        "medline": _short(options.medline or inputs.medline_folder(options.cache)),
        "model": _short(options.model or inputs.model_folder(options.cache)),
    }
    conditions = [
        "own_model" if options.model else "fetched_model",
        *(["small"] if options.small else []),
    ]
    own = [name for name in ("medline", "model") if getattr(options, name) is not None]
    skipped = {f"fetch-{name}" for name in own}
    all_stages = stages.load(LIST, variables, conditions)
    chosen = [stage for stage in all_stages if stage.name not in skipped]
    print(
        f"Galen's demo: {len(chosen)} stages, files in {work}. Each command can be run by hand, in"
        f" {ROOT}, after: . .venv/bin/activate"
    )
    with lock.hold(ROOT / work):
        stages.run(chosen, ROOT, work)
    print("These models are for research, not for medical advice.")
    print(f"Did it help? {ROOT / work / 'progress'}")
    print(f"Report: {ROOT / work / 'report.html'}")


def _has_bf16() -> bool:
    """Return whether this CPU has bf16 matrix products; emulation is very slow."""
    description = Path("/proc/cpuinfo")
    if not description.is_file():  # not Linux
        return False
    words = set(description.read_text(encoding="utf-8", errors="replace").split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})  # x86-64 and, the last, Arm


def _short(path: Path) -> Path:
    """Return a path relative to the repository's root if it is inside."""
    path = path.expanduser().resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--medline",
        type=Path,
        metavar="PATH",
        help="your own MEDLINE XML: a file or a folder (default: two files from pip)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="your own Hugging Face model of the Llama family (default: SmolLM2-135M from pip)",
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=ROOT / "runs" / "demo",
        metavar="DIR",
        help="folder for all results (default: runs/demo)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=inputs.cache_folder(),
        metavar="DIR",
        help="folder of downloads (default: %(default)s)",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="a few steps on a few records, to try the pipeline",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
