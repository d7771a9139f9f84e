"""Building a corpus: read, run the recipe's steps, write.

Then check that every record is accounted for.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from data_prep.curation.corpus_stats import Statistics, merge_statistics
from data_prep.curation.exclusion_writer import merge_samples
from data_prep.curation.input_files import RawFile, tasks_of
from data_prep.curation.medline_versions import VersionFinder, VersionWriter
from data_prep.curation.quarantine import check_quarantine, quarantined
from data_prep.curation.recipe import SPLITS, CorpusRecipe
from data_prep.curation.registry import STEPS
from data_prep.curation.shuffle import shuffle
from data_prep.curation.source_filter import SomeSources
from data_prep.curation.source_reader import SourceFiles
from data_prep.curation.stages import Executors, Stages, cut
from data_prep.curation.writers import SplitWriter
from data_prep.executors.local import TaskExecutor
from data_prep.readers import READERS
from data_prep.readers.base import NOTED
from data_prep.steps.decontamination.items import item_files
from data_prep.steps.filters.medical import lists_in
from data_prep.steps.global_step import CorpusStep, PreparedFilter
from data_prep.steps.options import Decontaminate, Medical
from data_prep.tokenization.token_count import token_counter
from galen.atomic import atomic_file, write_text
from galen.errors import DataError


def steps_of(recipe: CorpusRecipe) -> list[PipelineStep | CorpusStep]:
    """Return the steps that a recipe asks for, in order.

    The first that drops a record names the reason.
    """
    made = []
    for settings in recipe.steps:
        step, sources = step_of(settings), getattr(settings, "sources", None)
        made.append(step if sources is None else SomeSources(step, sources))
    return made


def step_of(settings: Any) -> Any:
    """Return the step with these settings, for documents of all sources.

    The settings are an instance of one of the classes of data_prep/steps/options.py.
    """
    values = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in ("step", "sources")
    }
    return STEPS[settings.step](**values)


def check(recipe: CorpusRecipe) -> None:
    """Check what the steps are made of before any long work.

    Raises:
        UsageError, DataError: a setting is wrong, a file that a step needs is missing.
    """
    for step in steps_of(recipe):
        if isinstance(step, PreparedFilter):
            step.check()
    token_counter(recipe.tokenizer)


def files_of_steps(recipe: CorpusRecipe) -> list[Path]:
    """Return the user's files that steps read besides the sources.

    These are evaluation items, lists of phrases and of keywords.
    """
    files: list[Path] = []
    for step in recipe.steps:
        if isinstance(step, Decontaminate):
            files += [
                *item_files(step.eval_datasets),
                *([Path(step.common_phrases)] if step.common_phrases else []),
            ]
        elif isinstance(step, Medical) and step.keywords:
            files += [path for _, path in lists_in(step.keywords)]
    return files


def build(
    recipe: CorpusRecipe, files: Sequence[RawFile], executors: Executors, folder: Path
) -> dict[str, Any]:
    """Build the corpus in the working folder `folder`, whose `corpus/` then holds the splits.

    Return the counts.

    Tasks that an earlier, killed run finished in `folder` are not done again; what it left
    half-written is written anew.

    Args:
        recipe: what to do.
        files: what to read, in order.
        executors: makes what runs tasks; the result does not depend on it.
        folder: kept between runs, the caller's to remove.

    Raises:
        DataError: an input is damaged, or a needed split is empty.
    """
    tasks = tasks_of(files, [name for name, reader in READERS.items() if reader.many_per_task])
    sources, corpus = [task[0].source for task in tasks], folder / "corpus"
    stages = Stages(
        sources, folder, executors, recipe.save_excluded, sum(file.size for file in files)
    )
    reader = SourceFiles(
        tasks,
        str(folder / "log/read"),
        str(folder / "quarantine"),
        find_versions(files, folder, stages),
    )
    ordered, level = (folder / "ordered", 1) if recipe.shuffle else (corpus, 6)
    statistics_step = Statistics(
        sources, str(folder / "statistics"), recipe.tokenizer, recipe.split
    )
    last: list[PipelineStep] = [statistics_step, SplitWriter(str(ordered), recipe.split, level)]

    def check_reading(read: TaskExecutor) -> None:
        check_quarantine(read.counts(0), recipe.max_error_rate, folder)

    write = stages.run(reader, cut(steps_of(recipe)), last, check_reading)
    counts = _account(recipe, sources, stages, write)
    if recipe.shuffle:
        shuffle(recipe.shuffle, counts["bytes"], len(tasks), folder, stages)
    statistics = merge_statistics(folder / "statistics", len(tasks))
    statistics |= {
        "counts": counts,
        "samples": merge_samples(folder / "samples"),
        "steps": stages.reports,
    }
    if not recipe.report.samples:
        statistics |= {"samples": {}, "kept_samples": []}
    write_text(corpus / "statistics.json", json.dumps(statistics, ensure_ascii=False, indent=1))
    _publish_findings(folder, corpus)
    if bad := sorted((folder / "quarantine").glob("*.jsonl")):
        _join(bad, corpus / "quarantine.jsonl")
    return counts | {"tokens": statistics["tokens"]}


def _publish_findings(folder: Path, corpus: Path) -> None:
    """Add the files that steps publish (JSONL of clusters, of matches) to the corpus.

    Files of two steps of the same name are concatenated.
    """
    found = sorted(
        folder.glob("[0-9]*-*/publish/*"),
        key=lambda path: (path.name, int(path.parts[-3].partition("-")[0]), path),
    )
    for name, parts in groupby(found, key=lambda path: path.name):
        _join(parts, corpus / name)


def _join(parts: Iterable[Path], output: Path) -> None:
    """Write files one after the other as one, which may be as large as the corpus."""
    with atomic_file(output) as path, path.open("wb") as target:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, target)


def find_versions(files: Sequence[RawFile], folder: Path, stages: Stages) -> str | None:
    """Find out which records of the MEDLINE files count.

    Returns the folder of the verdicts, or None without such files.
    """
    medline = [(file.path, file.options) for file in files if file.reader == "medline"]
    if not medline:
        return None
    stages.run_tasks("index", [VersionWriter(medline, str(folder / "versions"))], len(medline))
    judged = str(folder / "version_verdicts")
    stages.run_tasks(
        "version_finder", [VersionFinder(str(folder / "versions"), judged, len(medline))], 1
    )
    return judged


def _account(
    recipe: CorpusRecipe, sources: Sequence[str], stages: Stages, write: TaskExecutor
) -> dict[str, Any]:
    """Return the counts of the manifest.

    Checks, for each task, that what was read is what was kept and what was dropped.
    """
    by_source: dict[str, Counter[str]] = {}
    written, source_counts = write.counts(-1), Counter[str]()
    for task, source in enumerate(sources):
        first = stages.read.task_counts(task)[0]
        last, lost = write.task_counts(task)[-1], stages.dropped[task]
        kept = sum(last[name] for name in SPLITS) - last["extra_repeats"]
        if first["total"] != kept + sum(lost.values()):
            raise RuntimeError(
                f"task {task}: read {first['total']} records, but kept {kept} and dropped"
                f" {sum(lost.values())}: a bug, please report it"
            )
        by_source.setdefault(source, Counter()).update(
            {"read": first["total"], "kept": kept, **lost}
        )
        source_counts.update(first)
    order = ["reader", *(step.step for step in recipe.steps)]
    total = sum(stages.dropped, Counter[str]())
    dropped = dict(
        sorted(total.items(), key=lambda pair: (order.index(pair[0].partition(":")[0]), pair[0]))
    )
    splits = {name: written[name] for name in SPLITS if getattr(recipe.split, name) > 0}
    kept = sum(counts["kept"] for counts in by_source.values())
    for name, count in splits.items():
        if count == 0:
            reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "nothing"
            raise DataError(
                f"the {name} split would be empty: {source_counts['total']} records read, {kept}"
                f" kept (dropped: {reasons}); give more input, filter less, or set split.{name}=0"
                " and share it among the others"
            )
    noted = {
        key.removeprefix(NOTED): count
        for key, count in sorted(source_counts.items())
        if key.startswith(NOTED)
    }
    return ({"noted": noted} if noted else {}) | {
        "read": source_counts["total"],
        "kept": kept,
        "dropped": dropped,
        "extra_repeats": written["extra_repeats"],
        "changed": dict(stages.changed),
        "splits": splits,
        "bytes": written["text_bytes"],
        "sources": {name: dict(counts) for name, counts in by_source.items()},
        "quarantined": quarantined(source_counts),
        "broken_files": source_counts["broken files"],
    }
