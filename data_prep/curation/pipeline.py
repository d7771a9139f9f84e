"""Building a corpus: read, run the recipe's steps, write.

Then check that every record is accounted for.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.curation.accounting import corpus_counts
from data_prep.curation.corpus_stats import Statistics, merge_statistics
from data_prep.curation.exclusion_writer import merge_samples
from data_prep.curation.input_files import InputFile, split_into_tasks
from data_prep.curation.medline_versions import VersionResolver, VersionWriter
from data_prep.curation.quarantine import check_quarantine
from data_prep.curation.recipe import CorpusRecipe
from data_prep.curation.registry import build_step
from data_prep.curation.shuffle import shuffle
from data_prep.curation.source_reader import SourceFiles
from data_prep.curation.stages import Executors, Stages, split_at_barriers
from data_prep.curation.writers import SplitWriter
from data_prep.executors.local import TaskExecutor
from data_prep.readers import READERS
from data_prep.steps.base import PreparedFilter
from data_prep.tokenization.token_count import token_counter
from galen.atomic import atomic_file, write_text


def check(recipe: CorpusRecipe) -> None:
    """Check the settings and files of the steps before any long work.

    Raises:
        UsageError, DataError: a setting is wrong, a file that a step needs is missing.
    """
    for settings in recipe.steps:
        step = build_step(settings)
        if isinstance(step, PreparedFilter):
            step.check()
    token_counter(recipe.tokenizer)


def files_of_steps(recipe: CorpusRecipe) -> list[Path]:
    """Return the user's files that steps read besides the sources.

    These are evaluation items, lists of phrases and of keywords.
    """
    files: list[Path] = []
    for settings in recipe.steps:
        files += settings.input_files()
    return files


def build(
    recipe: CorpusRecipe, files: Sequence[InputFile], executors: Executors, folder: Path
) -> dict[str, Any]:
    """Build the corpus in the working folder `folder`, whose `corpus/` then holds the splits.

    Return the counts.

    Tasks that an earlier, killed run finished in `folder` are skipped; its incomplete files are
    written again.

    Args:
        recipe: of the corpus.
        files: inputs, in order.
        executors: makes the executors of tasks; the result does not depend on them.
        folder: kept between runs, the caller's to remove.

    Raises:
        DataError: an input is damaged, or a needed split is empty.
    """
    tasks = split_into_tasks(files, [name for name in READERS if READERS[name].many_per_task])
    sources = [task[0].source for task in tasks]
    corpus = folder / "corpus"
    input_bytes = sum(file.size for file in files)
    stages = Stages(sources, folder, executors, recipe.save_excluded, input_bytes)
    reader = SourceFiles(
        tasks,
        str(folder / "log/read"),
        str(folder / "quarantine"),
        resolve_medline_versions(files, folder, stages),
    )
    ordered = folder / "ordered" if recipe.shuffle else corpus
    writer = SplitWriter(str(ordered), recipe.split, level=1 if recipe.shuffle else 6)
    statistics_folder = folder / "statistics"
    statistics = Statistics(sources, str(statistics_folder), recipe.tokenizer, recipe.split)

    def check_reading(read: TaskExecutor) -> None:
        check_quarantine(read.counts(0), recipe.max_error_rate, folder)

    write = stages.run(reader, split_at_barriers(recipe.steps), [statistics, writer], check_reading)
    counts = corpus_counts(recipe, sources, stages, write)
    if recipe.shuffle:
        shuffle(recipe.shuffle, counts["bytes"], len(tasks), folder, stages)
    statistics_record = merge_statistics(statistics_folder, len(tasks))
    _write_statistics(recipe, counts, statistics_record, stages, folder)
    _publish(stages.published, corpus)
    if quarantined := sorted((folder / "quarantine").glob("*.jsonl")):
        _concatenate(quarantined, corpus / "quarantine.jsonl")
    return counts | {"tokens": statistics_record["tokens"]}


def _write_statistics(
    recipe: CorpusRecipe,
    counts: dict[str, Any],
    record: dict[str, Any],
    stages: Stages,
    folder: Path,
) -> None:
    """Write `corpus/statistics.json`, for the report: `record`, counts, samples and findings."""
    record["counts"] = counts
    record["samples"] = merge_samples(folder / "samples")
    record["steps"] = stages.reports
    if not recipe.report.samples:
        record |= {"samples": {}, "kept_samples": []}
    content = json.dumps(record, ensure_ascii=False, indent=1)
    write_text(folder / "corpus/statistics.json", content)


def _publish(folders: Sequence[Path], corpus: Path) -> None:
    """Add the files that steps publish (JSONL of clusters, of matches) to the corpus.

    Files of two steps of the same name are concatenated.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for path in sorted(folder.glob("*")):
            by_name[path.name].append(path)
    for name, paths in sorted(by_name.items()):
        _concatenate(paths, corpus / name)


def _concatenate(paths: Iterable[Path], output: Path) -> None:
    """Write files one after the other as one, which may be as large as the corpus."""
    with atomic_file(output) as temporary, temporary.open("wb") as target:
        for path in paths:
            with path.open("rb") as file:
                shutil.copyfileobj(file, target)


def resolve_medline_versions(
    files: Sequence[InputFile], folder: Path, stages: Stages
) -> str | None:
    """Find the current records of the MEDLINE files.

    Returns the folder of the decisions, or None without such files.
    """
    medline = [(file.path, file.options) for file in files if file.reader == "medline"]
    if not medline:
        return None
    versions = str(folder / "versions")
    decisions = str(folder / "version_decisions")
    stages.run_tasks("index_versions", [VersionWriter(medline, versions)], len(medline))
    resolver = VersionResolver(versions, decisions, len(medline))
    stages.run_tasks("resolve_versions", [resolver], 1)
    return decisions
