"""Downloads of raw data from its publishers into a folder.

    galen download medline-baseline --output raw/medline/baseline
    galen download medline-updates  --output raw/medline/updatefiles
    galen download pmc --license comm --output raw/pmc
    # also s2-papers, s2-abstracts
    S2_API_KEY=… galen download s2orc --output raw/s2orc
    galen download hf:epfl-llm/guidelines --output raw/guidelines
    # a benchmark; docs/evaluation/tasks.md lists where to get others
    galen download pubmedqa --output DATA/pubmedqa

No other command downloads raw data. An interrupted download resumes when the same command is
started again, also within a file; a file that exists in its published version is skipped. Each file
is checked against the published checksum before it appears under its name, and recorded with the
time in downloads.jsonl. Read docs/sources.md first: it lists the licenses of the sources.
"""

import argparse
import concurrent.futures
import fnmatch
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_prep.fetching import benchmarks, listings, pmc
from data_prep.fetching.item import RECORD_NAME, Item, name_problem
from data_prep.fetching.record import Record
from data_prep.fetching.transfer import MAX_FILE_BYTES, Transfer
from data_prep.fetching.urls import public
from galen import cli, lock
from galen.errors import DataError, UsageError
from galen.progress import Progress

logger = logging.getLogger(__name__)

SOURCES = (
    "medline-baseline",
    "medline-updates",
    "pmc",
    "s2orc",
    "s2-papers",
    "s2-abstracts",
    *benchmarks.FILES,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(argv)
    _check(options)
    transfer = Transfer(
        options.requests_per_second,
        options.max_rate and options.max_rate * 1e6,
        int(options.max_file_size * 1e9),
    )
    if options.dry_run:
        for name, _ in _jobs(transfer, options):
            print(name)
        return 0
    with lock.hold(options.output):
        options.output.mkdir(exist_ok=True)
        _run(_jobs(transfer, options), transfer, options)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Check the options.

    Raises:
        UsageError: one is invalid.
    """
    if options.source not in SOURCES and not re.fullmatch("hf:.+", options.source):
        raise UsageError(
            f"no source {options.source!r}; the sources are {', '.join(SOURCES)} and hf:OWNER/NAME"
        )
    limits = [options.requests_per_second, options.max_file_size]
    if options.max_rate is not None:
        limits.append(options.max_rate)
    if min(limits) <= 0 or options.connections < 1:
        raise UsageError(
            "--requests-per-second, --max-rate and --max-file-size must be above 0, --connections"
            " at least 1"
        )
    if options.base_url is not None and not options.base_url.startswith(("http://", "https://")):
        raise UsageError(
            f"--base-url {public(options.base_url)}: an address begins with https:// or http://"
        )


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("source", metavar="SOURCE", help=f"{', '.join(SOURCES)} or hf:OWNER/NAME")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--include",
        action="append",
        metavar="GLOB",
        help="only files whose name matches, such as 'pubmed26n00*'; may be repeated",
    )
    parser.add_argument(
        "--license",
        nargs="+",
        choices=pmc.GROUPS,
        default=["comm"],
        help="PMC's license groups [comm]",
    )
    parser.add_argument(
        "--revision", default="main", help="branch, tag or commit of a hub dataset [main]"
    )
    parser.add_argument(
        "--release", default="latest", help="release of Semantic Scholar's datasets [latest]"
    )
    parser.add_argument(
        "--requests-per-second",
        type=float,
        default=3.0,
        metavar="N",
        help="maximum number of requests per second; NCBI asks for 3 [3]",
    )
    parser.add_argument(
        "--max-rate",
        type=float,
        metavar="MB/S",
        help="maximum rate of all connections in megabytes per second [no limit]",
    )
    parser.add_argument(
        "--max-file-size",
        type=float,
        default=MAX_FILE_BYTES / 1e9,
        metavar="GB",
        help="limit for files whose size is not published [%(default)g]",
    )
    parser.add_argument(
        "--connections",
        type=int,
        default=2,
        metavar="N",
        help="number of simultaneous downloads [2]",
    )
    parser.add_argument("--base-url", metavar="URL", help="another server, such as a mirror")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the files without downloading them"
    )
    return parser


Job = tuple[str, Callable[[], None]]


def _jobs(transfer: Transfer, options: argparse.Namespace) -> Iterator[Job]:
    """Return the remaining downloads."""
    record = Record(options.output)
    if options.source == "pmc":
        return _pmc_jobs(transfer, record, options)
    return _file_jobs(transfer, record, options)


Published = TypeVar("Published", Item, pmc.Package)


def _listing(transfer: Transfer, options: argparse.Namespace) -> Iterator[Item]:
    base = {} if options.base_url is None else {"base": options.base_url.rstrip("/")}
    if options.source.startswith("medline-"):
        section = "baseline" if options.source == "medline-baseline" else "updatefiles"
        return listings.medline(transfer, section, partial(_is_included, options.include), **base)
    if options.source.startswith("hf:"):
        return listings.hub(transfer, options.source[3:], revision=options.revision, **base)
    if options.source in benchmarks.FILES:
        return benchmarks.files(options.source, **base)
    dataset = options.source.removeprefix("s2-")
    return listings.semantic_scholar(transfer, dataset, release=options.release, **base)


def _file_jobs(transfer: Transfer, record: Record, options: argparse.Namespace) -> Iterator[Job]:
    """Yield the remaining downloads of a source that publishes files."""

    def fetch(item: Item) -> None:
        record.add(item.name, url=item.public_url, **transfer.file(item, options.output))

    def refuse(name: str) -> None:
        raise DataError(f"{name} is the name of two files; only the first one is downloaded")

    names: set[str] = set()
    for item in _included(_listing(transfer, options), options.include):
        if name_problem(item.name) is not None:
            yield repr(item.name[:100]), partial(fetch, item)  # which reports the problem
        elif item.name in names:
            yield item.name, partial(refuse, item.name)
        elif not record.is_current(item):
            yield item.name, partial(fetch, item)
        names.add(item.name)


def _pmc_jobs(transfer: Transfer, record: Record, options: argparse.Namespace) -> Iterator[Job]:
    base = (options.base_url or pmc.BUCKET).rstrip("/")
    for package in _included(pmc.packages(transfer, base), options.include):
        if pmc.is_current(package, options.license, options.output, record):
            continue
        job = partial(pmc.fetch, transfer, package, options.license, options.output, record, base)
        yield package.name, job


def _included(
    published: Iterator[Published], patterns: Iterable[str] | None
) -> Iterator[Published]:
    any_included = False
    for item in published:
        if _is_included(patterns, item.name):
            any_included = True
            yield item
    if patterns and not any_included:
        raise DataError(f"no published file matches --include {' '.join(patterns)}")


def _is_included(patterns: Iterable[str] | None, name: str) -> bool:
    return patterns is None or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _run(jobs: Iterator[Job], transfer: Transfer, options: argparse.Namespace) -> None:
    """Run all jobs.

    Raises:
        DataError: some files could not be downloaded.
    """
    downloads = _Downloads()
    with Progress("download", unit="B", scale=True) as progress:
        transfer.on_bytes = progress.update
        downloads.run(jobs, transfer, options.connections)
    errors = downloads.errors
    record = options.output / RECORD_NAME
    print(f"{_files(downloads.done)} downloaded, {len(errors)} failed; list: {record}")
    if errors:
        first_errors = "\n       ".join(errors[:5])
        raise DataError(
            f"{_files(len(errors))} could not be downloaded; start the same command again to"
            f" retry:\n       {first_errors}"
        )


class _Downloads:
    """Runs jobs, several at a time; a file that fails does not stop the others."""

    def __init__(self) -> None:
        self.done = 0
        self.errors: list[str] = []
        self._running: dict[concurrent.futures.Future[None], str] = {}

    def run(self, jobs: Iterator[Job], transfer: Transfer, connections: int) -> None:
        """Run all jobs, at most `connections` at a time."""
        with concurrent.futures.ThreadPoolExecutor(connections) as pool:
            try:
                for name, job in jobs:
                    self._running[pool.submit(job)] = name
                    if len(self._running) >= connections:
                        self._collect(concurrent.futures.FIRST_COMPLETED)
                self._collect(concurrent.futures.ALL_COMPLETED)
            except BaseException:
                transfer.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _collect(self, return_when: str) -> None:
        """Wait for jobs and count their results."""
        completed, _ = concurrent.futures.wait(self._running, return_when=return_when)
        for future in completed:
            name = self._running.pop(future)
            try:
                future.result()
                self.done += 1
            except (DataError, OSError) as error:
                self.errors.append(str(error))
                logger.error(f"failed: {name}: {error}")


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


if __name__ == "__main__":
    cli.run(main)
