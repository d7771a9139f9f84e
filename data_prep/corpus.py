"""Building a corpus: read and filter, find duplicates, write; then check that every record is accounted for."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.dedup.duplicate import DuplicateFilter
from data_prep.dedup.finder import DuplicateFinder
from data_prep.dedup.signature import SignatureWriter
from data_prep.executor import LocalExecutor
from data_prep.filters.abstract import AbstractFilter
from data_prep.filters.copyright import CopyrightFilter
from data_prep.filters.language import LanguageFilter
from data_prep.filters.retraction import RetractionFilter
from data_prep.quarantine import check_quarantine, quarantined
from data_prep.raw_files import RawFile, tasks_of
from data_prep.readers import READERS
from data_prep.readers.part import PartReader
from data_prep.readers.sources import SourceFiles
from data_prep.recipe import SPLITS, CorpusRecipe, Filters
from data_prep.versions import VersionFinder, VersionWriter
from data_prep.writer import RecordWriter, SplitWriter
from galen.atomic import atomic_file
from galen.errors import DataError
from galen.progress import Progress


def filters_of(settings: Filters) -> list[BaseFilter]:
    """Return the filters that a recipe asks for, in order; the first that drops a record names the reason."""
    filters: list[BaseFilter] = [AbstractFilter(settings.require_abstract)]
    if settings.languages is not None:
        filters.append(LanguageFilter(settings.languages))
    if settings.drop_retracted:
        filters.append(RetractionFilter())
    filters.append(CopyrightFilter(settings.copyright))
    return filters


def build(recipe: CorpusRecipe, files: Sequence[RawFile], workers: int, folder: Path) -> dict[str, Any]:
    """Build the corpus in the working folder `folder`, whose `corpus/` then holds the splits; return the counts.

    Tasks that an earlier, killed run finished in `folder` are not done again; what it left half-written is written anew.

    Args:
        recipe: what to do.
        files: what to read, in order.
        workers: processes at a time; the result does not depend on it.
        folder: kept between runs, the caller's to remove.

    Raises:
        DataError: an input is damaged, or a needed split is empty.
    """
    filters = filters_of(recipe.filters)
    tasks = tasks_of(files, [name for name, reader in READERS.items() if reader.many_per_task])
    versions = find_versions(files, workers, folder)
    steps = [SourceFiles(tasks, str(folder / "log/read"), str(folder / "quarantine"), versions), *filters]
    steps += [RecordWriter(str(folder / "kept"), level=1), SignatureWriter(str(folder / "signatures"))]
    read = LocalExecutor(steps, len(tasks), workers, folder / "log/read")
    _run("read", read, sum(file.size for file in files), "B", workers)
    check_quarantine(read.counts("sources"), recipe.max_bad_share, folder)

    find = LocalExecutor([DuplicateFinder(str(folder / "signatures"), str(folder / "verdicts"), len(tasks))], 1, 1, folder / "log/find")
    find.run()

    writer = SplitWriter(str(folder / "corpus"), recipe.split)
    duplicate = DuplicateFilter(str(folder / "verdicts"))
    write = LocalExecutor([PartReader(str(folder / "kept")), duplicate, writer], len(tasks), workers, folder / "log/write")
    _run("write", write, None, "files", workers)
    return _account(recipe, read, filters, write)


def find_versions(files: Sequence[RawFile], workers: int, folder: Path) -> str | None:
    """Find out which records of the MEDLINE files count; return the folder of the verdicts, None without such files."""
    medline = [(file.path, file.options) for file in files if file.reader == "medline"]
    if not medline:
        return None
    index = LocalExecutor([VersionWriter(medline, str(folder / "versions"))], len(medline), workers, folder / "log/versions")
    _run("index", index, None, "files", workers)
    judged = str(folder / "version_verdicts")
    LocalExecutor([VersionFinder(str(folder / "versions"), judged, len(medline))], 1, 1, folder / "log/version_finder").run()
    return judged


def _run(label: str, executor: LocalExecutor, total: int | None, unit: str, workers: int) -> None:
    """Run an executor and show its progress."""
    with Progress(label, total=total or executor.tasks, unit=unit, scale=unit == "B") as progress:

        def poll() -> None:
            done = executor.position() if unit == "B" else executor.tasks - len(executor.get_incomplete_ranks())
            progress.update(max(0, done - progress.done))

        executor.run(poll)
        poll()


def _account(recipe: CorpusRecipe, read: LocalExecutor, filters: Sequence[PipelineStep], write: LocalExecutor) -> dict[str, Any]:
    """Return the counts of the manifest; checks that what was read is what was kept and what was dropped."""
    source, written = read.counts("sources"), write.counts("splits")
    dropped = {f"reader: {key.removeprefix('dropped_')}": n for key, n in source.items() if key.startswith("dropped_")}
    for name, counts in [(str(step.name), read.counts(str(step.name))) for step in filters] + [("duplicate", write.counts("duplicate"))]:
        dropped |= {f"{name}: {key.removeprefix('dropped_')}": n for key, n in sorted(counts.items()) if key.startswith("dropped_")}
    splits = {name: written[name] for name in SPLITS if getattr(recipe.split, name) > 0}
    kept = sum(splits.values())
    if source["total"] != kept + sum(dropped.values()):
        raise RuntimeError(f"read {source['total']} records, but kept {kept} and dropped {sum(dropped.values())}: a bug, please report it")
    for name, count in splits.items():
        if count == 0:
            reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "nothing"
            raise DataError(
                f"the {name} split would be empty: {source['total']} records read, {kept} kept (dropped: {reasons}); "
                f"give more input, filter less, or set split.{name}=0 and share it among the others"
            )
    return {
        "read": source["total"],
        "kept": kept,
        "dropped": dropped,
        "splits": splits,
        "bytes": written["text_bytes"],
        "quarantined": quarantined(source),
        "broken_files": source["broken files"],
    }


def publish(folder: Path, output: Path) -> None:
    """Give the finished corpus its final name and remove the rest of the working folder."""
    output.parent.mkdir(parents=True, exist_ok=True)
    bad = sorted((folder / "quarantine").glob("*.jsonl"))
    if bad:
        with atomic_file(folder / "corpus/quarantine.jsonl") as path, path.open("wb") as file:
            file.writelines(part.read_bytes() for part in bad)
    (folder / "corpus").rename(output)
    shutil.rmtree(folder)
