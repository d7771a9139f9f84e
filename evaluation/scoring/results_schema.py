"""Schemas of the report's input files, which may be damaged or written by hand."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from galen.errors import DataError

Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f/\u2028]+$", max_length=200)]
"""A name that may be part of a file's name."""


class Checked(BaseModel):
    """A strict schema that ignores further keys."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Interval(Checked):
    """A value with its interval."""

    value: Number
    low: Number
    high: Number


class Bin(Checked):
    """One bin of a reliability diagram."""

    confidence: Number
    accuracy: Number


class Calibration(Checked):
    """A task's calibration."""

    ece: Number | None
    ece_biomistral: Number | None = None
    brier: Number | None
    bins: list[Bin]


class Position(Checked):
    """A position of the options."""

    position: Count
    chosen: Interval
    expected: Number
    accuracy: Interval | None


class OrderBias(Checked):
    """A task's order bias; without questions it has no metrics."""

    questions: Annotated[int, Field(ge=0)]
    orders: Count
    excluded: dict[str, int]
    accuracy: Interval | None = None
    accuracy_original_order: Interval | None = None
    all_orders_correct: Interval | None = None
    changed_answers: Interval | None = None
    changed_questions: Interval | None = None
    by_position: list[Position] = []


class Subset(Interval):
    """The primary metric of some of a task's samples."""

    samples: Count


class Summary(Checked):
    """A task's entry."""

    kind: str
    samples: Count
    metrics: dict[Line, Interval]
    chance: Number | None = None
    runs: dict[Line, Number] | None = None
    by_subject: dict[str, Interval] | None = None
    by_language: dict[str, Interval] | None = None
    calibration: Calibration | None = None
    predictions: dict[str, int] | None = None
    one_sided: str | None = None
    contaminated: Annotated[int, Field(ge=0)] | None = None
    contaminated_ids: list[str] = []
    clean: Subset | None = None
    contaminated_subset: Subset | None = None
    settings: dict[str, Any] = {}
    truncated_prompts: Annotated[int, Field(ge=0)] = 0
    order_bias: OrderBias | None = None


class Model(Checked):
    """Which model was scored."""

    name: str
    path: str
    adapter: str | None = None


class Results(Checked):
    """`results.json`."""

    tasks: dict[Line, Summary]
    model: Model
    protocol: str
    settings: dict[str, Any] = {}
    versions: dict[str, str]


class ScoredDocument(Checked):
    """A sample of a perplexity task."""

    id: str
    nll: Number
    tokens: Count


class ScoredQuestion(Checked):
    """A sample of a multiple-choice task."""

    id: str
    correct: bool | Annotated[float, Field(ge=0, le=1)]
    answer: str = ""
    prediction: str | None = None
    argmax: str | None = None
    top: str = ""
    logprobs: dict[str, Number] | None = None
    outputs: list[str] = []


class ScoredHarnessDocument(Checked):
    """A sample of a task of lm-evaluation-harness."""

    id: str
    score: Number
    weight: Annotated[Number, Field(gt=0)] = 1.0
    subject: str = ""
    metrics: dict[str, Number] = {}


class AnsweredConversation(Checked):
    """A sample of a task whose answers a judge scores."""

    id: str
    answers: list[str]
    answered: Annotated[Number, Field(ge=0, le=1)]


class ScoredRationale(Checked):
    """A sample with a checked reference rationale."""

    id: str
    rationale: str
    outputs: list[str]
    language: str = "en"


class RationaleScores(Checked):
    """A sample's metrics, in a file of evaluation/rationales.py."""

    id: str
    metrics: Annotated[dict[Line, Number], Field(min_length=1)]


class RationaleLanguage(Checked):
    """The metrics of the rationales in one language."""

    rationales: Count
    metrics: dict[Line, dict[str, Number]]


class RationaleSummary(Checked):
    """A file OUTPUT.summary.json of evaluation/rationales.py."""

    model: str
    protocol: str
    settings: dict[str, Any] = {}
    task: str
    samples: Count | None
    truncated_prompts: Annotated[int, Field(ge=0)] = 0
    languages: dict[str, RationaleLanguage]


class CorpusCounts(Checked):
    """Counts in the manifest of a corpus."""

    read: Annotated[int, Field(ge=0)]
    kept: Annotated[int, Field(ge=0)]
    dropped: dict[str, int]
    splits: dict[str, int] = {}


class LogLine(Checked):
    """A step or a validation in the log of a training run."""

    step: Annotated[int, Field(ge=0, le=10**15)]
    loss: Number
    tokens: int | float | None = None


class StageTime(Checked):
    """How long a stage took."""

    title: str
    seconds: Annotated[Number, Field(ge=0)]


def check(schema: type[BaseModel], value: Any, where: str | Path, name: str) -> None:
    """Check that a value has a schema.

    Raises:
        DataError: it has not; with `where`, what it should be (`name`), and the first wrong key.
    """
    try:
        schema.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            problem = f"the key {key!r} is missing"
        else:
            problem = f"{key}: {first['msg']}" if key else "expected an object"
        raise DataError(f"{where}{name}: {' '.join(problem.split())[:300]}") from None
