"""The papers' tables with our rows above the published ones.

A row of ours is comparable with the published rows if it was scored under one of the table's
protocols, with its number of few-shot examples and all other settings of the protocol, on the full
test sets. Other rows get a footnote with protocol, shots, and each value's samples and interval.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.metrics.intervals import Estimate
from evaluation.reporting import comparability
from evaluation.reporting.published_results import TABLES, Column, PublishedTable
from evaluation.reporting.rationale_summaries import RationaleRun
from evaluation.reporting.report_inputs import (
    ModelScores,
    TaskScores,
    contaminated_by_any,
)
from evaluation.reporting.tables import Table

_CLEAN = "clean subset"
_Contaminated = dict[str, frozenset[str] | None]
"""Task to the ids of its contaminated samples; None if they were not checked."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """Our value in one column."""

    column: Column
    estimate: Estimate
    """In percent."""
    samples: int
    contaminated: int
    """Samples that the training corpus contains; 0 if that was not checked."""
    task_differences: list[str]
    """Keys of the task that set something of the protocol, or differ from the built-in task."""
    truncated: int = 0
    """Prompts of the task that did not fit the model's context."""
    rationales: int | None = None
    """Scored rationales, in tables of their metrics."""

    @property
    def is_complete(self) -> bool:
        """Return whether the value is of the full test set under the published settings."""
        is_full = self.samples in self.column.samples
        return is_full and not self.task_differences and not self.truncated

    @property
    def details(self) -> str:
        """Return the column with the value's samples and interval."""
        of = "" if self.samples in self.column.samples else f" of {self.column.samples[0]:,}"
        low = _shown(self.estimate.low)
        high = _shown(self.estimate.high)
        rationales = ""
        if self.rationales is not None:
            rationales = f", {self.rationales:,} with a checked rationale"
        truncated = ""
        if self.truncated:
            truncated = f", {self.truncated:,} prompts of the task truncated to the model's context"
        return (
            f"{self.column.title}: n = {self.samples:,}{of}{rationales}{truncated}, 95 % interval"
            f" {low} to {high}"
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of ours."""

    name: str
    cells: list[_Cell | None]
    notes: list[str]
    """Sentences for the row's footnote; empty if it needs none."""
    is_comparable: bool

    def texts(self, mark: str) -> list[str]:
        """Return the row's cells as text, with a footnote mark behind the name."""
        values = [None if cell is None else cell.estimate.value for cell in self.cells]
        return [f"{self.name}{mark}", *map(_shown, [*values, _average(values)])]


def paper_tables(
    models: Sequence[ModelScores], rationales: Sequence[RationaleRun] = ()
) -> list[Table]:
    """Return the papers' tables with at least one column of the models, our rows first."""
    contaminated = _contaminated(models)
    tables = []
    for published in TABLES:
        rows: list[_Row] = []
        if published.metric == "accuracy":
            for model in models:
                rows += _own_rows(published, model, contaminated)
        else:
            rows += filter(None, [_rationale_row(published, run) for run in rationales])
        if rows:
            tables.append(_table(published, rows))
    return tables


def _contaminated(models: Sequence[ModelScores]) -> _Contaminated:
    """Return the contaminated samples of each task, so that all models have one clean subset."""
    by_task: dict[str, list[TaskScores]] = {}
    for model in models:
        for task, scores in model.tasks.items():
            by_task.setdefault(task, []).append(scores)
    return {task: contaminated_by_any(scores) for task, scores in by_task.items()}


def _table(published: PublishedTable, rows: Sequence[_Row]) -> Table:
    texts = []
    footnotes: list[str] = []
    row_notes = []
    for row in rows:
        note = " ".join(row.notes)
        mark = ""
        if note:
            mark = f" [{len(footnotes) + 1}]"
            footnotes.append(f"{row.name}: {note}")
        texts.append(row.texts(mark))
        row_notes.append(note)
    for name, values in published.rows.items():
        texts.append([name, *map(_shown, values)])
    conditions = "The paper's prompts are not known: no row of ours is comparable."
    if published.protocols:
        conditions = (
            f"In bold: rows of ours under a protocol of the table ({published.conditions}) on the"
            " full test sets."
        )
    return Table(
        name=published.name,
        title=published.title,
        note=f"{conditions} Published rows: {published.source}.",
        columns=["", *(column.title for column in published.columns), "Average"],
        rows=texts,
        own=len(rows),
        bold=frozenset(index for index, row in enumerate(rows) if row.is_comparable),
        footnotes=tuple(footnotes),
        row_notes=tuple(row_notes),
    )


def _own_rows(
    published: PublishedTable, model: ModelScores, contaminated: _Contaminated
) -> list[_Row]:
    """Return a model's rows: all samples, and the clean ones if some are contaminated."""
    cells = [_cell(model, column, contaminated) for column in published.columns]
    filled = [cell for cell in cells if cell is not None]
    if not filled:
        return []
    different = comparability.different_settings(model, published)
    is_comparable = not different and all(cell.is_complete for cell in filled)
    notes = []
    if not is_comparable:
        notes.append(_deviation(model, different, filled))
    leaked = [cell for cell in filled if cell.contaminated]
    if not leaked:
        return [_Row(model.name, cells, notes, is_comparable)]
    counts = ", ".join(
        f"{cell.contaminated:,} of {cell.samples:,} samples of {cell.column.title}"
        for cell in leaked
    )
    notes.append(f"In the training corpus: {counts}; the next row is without them.")
    clean = [_cell(model, column, contaminated, clean=True) for column in published.columns]
    clean_note = _deviation(model, different, [cell for cell in clean if cell])
    return [
        _Row(model.name, cells, notes, is_comparable),
        _Row(f"{model.name}, {_CLEAN}", clean, [clean_note], False),
    ]


def _rationale_row(published: PublishedTable, run: RationaleRun) -> _Row | None:
    """Return a run's row in a table of a metric of rationales; None if it has no value there."""
    cells: list[_Cell | None] = []
    for column in published.columns:
        scores = run.tasks.get(column.tasks[0][0])
        if scores is None or published.metric not in scores.metrics:
            cells.append(None)
            continue
        estimate = scores.metrics[published.metric]
        cells.append(
            _Cell(column, estimate, scores.samples, 0, [], scores.truncated, scores.rationales)
        )
    filled = [cell for cell in cells if cell is not None]
    if not filled:
        return None
    different = comparability.different_settings(run, published)
    is_comparable = not different and all(cell.is_complete for cell in filled)
    notes = [] if is_comparable else [_deviation(run, different, filled)]
    return _Row(run.name, cells, notes, is_comparable)


def _deviation(
    model: ModelScores | RationaleRun, different: Sequence[str], cells: Sequence[_Cell]
) -> str:
    """Return a row's protocol, shots, other settings, samples and intervals in one sentence."""
    fields = [f"protocol {model.protocol}"]
    shots = model.settings.get("num_fewshot")
    fields.append("shots not recorded" if shots is None else f"{shots} shots")
    for key in different:
        if key in model.settings and key not in ("num_fewshot", "template"):
            fields.append(f"{key} {model.settings[key]}")
    for key in dict.fromkeys(
        itertools.chain.from_iterable(cell.task_differences for cell in cells)
    ):
        fields.append(f"{key} of the task differs")
    details = "; ".join(cell.details for cell in cells)
    return f"{', '.join(fields)}. {details}."


def _cell(
    model: ModelScores, column: Column, contaminated: _Contaminated, clean: bool = False
) -> _Cell | None:
    """Return a model's value for a column; None if it has none, or if it is not known."""
    for task, subject in column.tasks:
        if task not in model.tasks:
            continue
        scores = model.tasks[task]
        if "accuracy" not in scores.metrics:
            continue
        if subject:
            ids = _of_subject(scores, subject)
            if not ids:
                continue
        else:
            ids = frozenset(scores.samples)
        leaked = contaminated[task]
        if not clean:
            return _cell_of(column, model, task, ids, len(ids & (leaked or frozenset())))
        if leaked is None or ids <= leaked:
            return None
        return _cell_of(column, model, task, ids - leaked, 0)
    return None


def _cell_of(
    column: Column, model: ModelScores, task: str, ids: frozenset[str], contaminated: int
) -> _Cell:
    scores = model.tasks[task]
    is_entire = len(ids) == len(scores.samples)
    metrics = scores.metrics if is_entire else scores.subset(ids).metrics
    accuracy = metrics["accuracy"]
    return _Cell(
        column,
        Estimate(100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high),
        len(ids),
        contaminated,
        comparability.task_differences(model, task),
        scores.truncated_prompts,
    )


def _of_subject(scores: TaskScores, subject: str) -> frozenset[str]:
    return frozenset(
        id_ for id_, sample in scores.samples.items() if sample.get("subject") == subject
    )


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
