"""Options of `galen evaluate` for tasks of lm-evaluation-harness."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--lm-eval-include-path",
        type=Path,
        metavar="DIR",
        help="folder of further task files of lm-evaluation-harness",
    )
    parser.add_argument(
        "--lm-eval-gen-kwargs",
        type=_gen_kwargs,
        metavar="K=V,K=V",
        help=(
            "generation settings that override those of the harness' tasks, for example"
            " max_gen_toks=512"
        ),
    )


def _gen_kwargs(text: str) -> dict[str, Any]:
    """Return settings written as in the harness' `--gen_kwargs`; a value is JSON or a text."""
    settings = {}
    for pair in text.split(","):
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise argparse.ArgumentTypeError(f"expected KEY=VALUE,KEY=VALUE, not {text!r}")
        try:
            settings[key.strip()] = json.loads(value)
        except ValueError:
            settings[key.strip()] = value
    return settings
