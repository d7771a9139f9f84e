"""Options that the conversion commands share. No torch here: `--help` answers at once."""

import argparse
from pathlib import Path
from typing import Any

from galen import checksums, manifest


def positive(text: str) -> int:
    """Return a positive integer; an argparse type."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def add_megatron(parser: argparse.ArgumentParser) -> None:
    """Add --megatron and --iteration."""
    add_megatron_folder(parser)
    parser.add_argument(
        "--iteration", type=int, metavar="N", help="iteration to read (default: the newest)"
    )


def add_megatron_folder(parser: argparse.ArgumentParser) -> None:
    """Add --megatron."""
    parser.add_argument(
        "--megatron",
        type=Path,
        required=True,
        metavar="DIR",
        help="checkpoint folder with latest_checkpointed_iteration.txt",
    )


def add_output(parser: argparse.ArgumentParser, description: str) -> None:
    """Add --output."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=description)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add --megatron, --iteration and --output."""
    add_megatron(parser)
    add_output(parser, "folder to write; must not exist")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add --dtype, a key of `import_hf.DTYPES`."""
    parser.add_argument(
        "--dtype",
        choices=("bf16", "fp16", "fp32"),
        help="precision of the weights written (default: their own)",
    )


def add_no_verify(parser: argparse.ArgumentParser) -> None:
    """Add --no-verify."""
    parser.add_argument("--no-verify", action="store_true", help=checksums.HELP)


def add_execution(parser: argparse.ArgumentParser) -> None:
    """Add --workers and --no-verify, which change nothing in the output."""
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="number of worker processes (default 1)",
    )
    add_no_verify(parser)


def recorded(folder: Path, no_verify: bool) -> dict[Path, dict[str, Any]]:
    """Return a folder's recorded files from its manifest, for `InputHashes`.

    With `no_verify`, it returns an empty dict and warns.

    Raises:
        DataError: the manifest is damaged.
    """
    if no_verify:
        checksums.log_skipped(folder)
        return {}
    return manifest.recorded(folder)
