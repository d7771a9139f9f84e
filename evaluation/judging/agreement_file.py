"""A judge's agreement with physicians and with itself: JUDGE/agreement.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from evaluation.question_sets import jsonl
from evaluation.scoring.results_schema import Checked, Interval, check
from galen.atomic import write_text

NAME = "agreement.json"
LABELS = "agreement.jsonl"
"""The judge's verdicts on the labeled answers."""


class _Theme(Interval):
    samples: Annotated[int, Field(ge=1)]


class Agreement(Checked):
    """The file."""

    judge: str
    samples: Annotated[int, Field(ge=1)]
    unjudged: Annotated[int, Field(ge=0)]
    macro_f1: Interval
    by_theme: dict[str, _Theme]
    physicians_macro_f1: float | None = None
    self_consistency: float | None = None


def write(folder: Path, agreement: Mapping[str, Any]) -> Path:
    """Write a judge's agreement into its folder."""
    path = folder / NAME
    write_text(path, json.dumps(agreement, indent=1, ensure_ascii=False) + "\n")
    return path


def read(folder: Path) -> dict[str, Any] | None:
    """Return a judge's agreement, None where it was not measured.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    value = jsonl.tree(path)
    check(Agreement, value, path, " is not a file of `galen judge-agreement`")
    return dict(value)


def sentence(judge: str, agreement: Mapping[str, Any] | None) -> str:
    """Return in words how far a judge agrees with physicians."""
    if agreement is None:
        return f"judge {judge}; agreement with physicians not measured (galen judge-agreement)"
    f1 = agreement["macro_f1"]
    text = (
        f"judge {judge}; macro F1 against physicians {f1['value']:.3f} (95 % interval"
        f" {f1['low']:.3f} to {f1['high']:.3f}, {agreement['samples']:,} labeled answers"
    )
    physicians = agreement.get("physicians_macro_f1")
    if physicians is not None:
        text += f"; physicians among themselves {physicians:.3f}"
    consistency = agreement.get("self_consistency")
    if consistency is not None:
        text += f"; repeats agree in {100 * consistency:.1f} %"
    return f"{text})"
