"""Raw data from where it is published, into a folder.

    galen download medline-baseline --output raw/medline/baseline
    galen download medline-updates  --output raw/medline/updatefiles
    galen download pmc --license comm --output raw/pmc
    # also s2-papers, s2-abstracts
    S2_API_KEY=… galen download s2orc --output raw/s2orc
    galen download hf:epfl-llm/guidelines --output raw/guidelines
    # a benchmark; docs/evaluation.md says where others are
    galen download pubmedqa --output DATA/pubmedqa

Nothing else in Galen fetches raw data. Stopped and started again, the command resumes where it was,
inside a file too; a file that is there as it is published is not fetched again. Each file is
checked against the published checksum before it gets its name, and noted with the time in
downloads.jsonl. docs/sources.md says under which license each source may be used: read it first.
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
from data_prep.fetching.record import Record
from data_prep.fetching.transfer import MAX_FILE_BYTES, Item, Transfer, public, trouble_with
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
    if options.source not in SOURCES and not re.fullmatch("hf:.+", options.source):
        raise UsageError(
            f"no source {options.source!r}; there are {', '.join(SOURCES)} and hf:OWNER/NAME"
        )
    rates = [
        options.requests_per_second,
        options.max_file_size,
        *([] if options.max_rate is None else [options.max_rate]),
    ]
    if min(rates) <= 0 or options.connections < 1:
        raise UsageError(
            "--requests-per-second, --max-rate and --max-file-size must be above 0, --connections"
            " at least 1"
        )
    if options.base_url is not None and not options.base_url.startswith(("http://", "https://")):
        raise UsageError(
            f"--base-url {public(options.base_url)}: an address begins with https:// or http://"
        )
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


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("source", metavar="SOURCE", help=f"{', '.join(SOURCES)} or hf:OWNER/NAME")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--include",
        action="append",
        metavar="GLOB",
        help="only files whose name fits, as 'pubmed26n00*'; may be repeated",
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
        help="at most; NCBI asks for 3 [3]",
    )
    parser.add_argument(
        "--max-rate",
        type=float,
        metavar="MB/S",
        help="megabytes a second over all connections [no limit]",
    )
    parser.add_argument(
        "--max-file-size",
        type=float,
        default=MAX_FILE_BYTES / 1e9,
        metavar="GB",
        help="limit for files whose size is not published [%(default)g]",
    )
    parser.add_argument(
        "--connections", type=int, default=2, metavar="N", help="files at a time [2]"
    )
    parser.add_argument("--base-url", metavar="URL", help="another server, such as a mirror")
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would be fetched, and fetch nothing"
    )
    return parser


Job = tuple[str, Callable[[], None]]


def _jobs(transfer: Transfer, options: argparse.Namespace) -> Iterator[Job]:
    """Return the downloads left to do."""
    record = Record(options.output)
    return (
        _pmc_jobs(transfer, record, options)
        if options.source == "pmc"
        else _file_jobs(transfer, record, options)
    )


Published = TypeVar("Published", Item, pmc.Package)


def _listing(transfer: Transfer, options: argparse.Namespace) -> Iterator[Item]:
    base = {} if options.base_url is None else {"base": options.base_url.rstrip("/")}
    if options.source.startswith("medline-"):
        part = "baseline" if options.source == "medline-baseline" else "updatefiles"
        return listings.medline(transfer, part, partial(_is_included, options.include), **base)
    if options.source.startswith("hf:"):
        return listings.hub(transfer, options.source[3:], revision=options.revision, **base)
    if options.source in benchmarks.FILES:
        return benchmarks.files(options.source, **base)
    dataset = options.source.removeprefix("s2-")
    return listings.semantic_scholar(transfer, dataset, release=options.release, **base)


def _file_jobs(transfer: Transfer, record: Record, options: argparse.Namespace) -> Iterator[Job]:
    """Yield the downloads left to do for sources that publish files."""

    def fetch(item: Item) -> None:
        record.add(item.name, url=item.public_url, **transfer.file(item, options.output))

    def refuse(name: str) -> None:
        raise DataError(f"{name} is the name of two files; the first one is fetched")

    names: set[str] = set()
    for item in _included(_listing(transfer, options), options.include):
        if trouble_with(item.name) is not None:
            yield repr(item.name[:100]), partial(fetch, item)  # which says what the trouble is
        elif item.name in names:
            yield item.name, partial(refuse, item.name)
        elif not record.has(item):
            yield item.name, partial(fetch, item)
        names.add(item.name)


def _pmc_jobs(transfer: Transfer, record: Record, options: argparse.Namespace) -> Iterator[Job]:
    base = (options.base_url or pmc.BUCKET).rstrip("/")
    for package in _included(pmc.packages(transfer, base), options.include):
        if not pmc.is_there(package, options.license, options.output, record):
            yield (
                package.name,
                partial(
                    pmc.fetch, transfer, package, options.license, options.output, record, base
                ),
            )


def _included(
    published: Iterator[Published], patterns: Iterable[str] | None
) -> Iterator[Published]:
    found = False
    for item in published:
        if _is_included(patterns, item.name):
            found = True
            yield item
    if patterns and not found:
        raise DataError(f"the name of no published file fits --include {' '.join(patterns)}")


def _is_included(patterns: Iterable[str] | None, name: str) -> bool:
    return patterns is None or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _run(jobs: Iterator[Job], transfer: Transfer, options: argparse.Namespace) -> None:
    """Run all jobs, some at a time; a file that fails does not stop the others.

    Raises:
        DataError: some files could not be downloaded.
    """
    failed: list[str] = []
    done = 0
    with (
        Progress("download", unit="B", scale=True) as progress,
        concurrent.futures.ThreadPoolExecutor(options.connections) as pool,
    ):
        transfer.on_bytes = progress.update
        running: dict[concurrent.futures.Future[None], str] = {}

        def collect(wait_for: str) -> None:
            nonlocal done
            finished, _ = concurrent.futures.wait(running, return_when=wait_for)
            for future in finished:
                name = running.pop(future)
                try:
                    future.result()
                    done += 1
                except (DataError, OSError) as error:
                    failed.append(str(error))
                    logger.error(f"failed: {name}: {error}")

        try:
            for name, job in jobs:
                running[pool.submit(job)] = name
                if len(running) >= options.connections:
                    collect(concurrent.futures.FIRST_COMPLETED)
            collect(concurrent.futures.ALL_COMPLETED)
        except BaseException:
            transfer.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    print(
        f"{done} files downloaded, {len(failed)} failed; list: {options.output / 'downloads.jsonl'}"
    )
    if failed:
        shown = "\n       ".join(failed[:5])
        raise DataError(
            f"{len(failed)} files could not be downloaded; start the same command again to"
            f" retry:\n       {shown}"
        )


if __name__ == "__main__":
    cli.run(main)
