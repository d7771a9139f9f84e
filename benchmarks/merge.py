"""Measure memory and time of merging token files.

    python benchmarks/merge.py --documents 100000000 --work DIR

writes two token files of half as many documents each (22 ids per document, so that 100 million
documents exceed 2^31 bytes twice; their .bin are sparse), merges them with
data_prep/merge_indexed.py and checks the result with data_prep/describe.py --check, each as a
process of its own, and prints their seconds and peak memory. Needs 20 bytes per document twice and
44 once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import write_document_ends, write_header, write_offsets
from galen import cli

ROOT = Path(__file__).parents[1]
IDS = 22
CHUNK = 1 << 20


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--documents",
        type=int,
        default=100_000_000,
        metavar="N",
        help="of the merged file [%(default)s]",
    )
    parser.add_argument(
        "--work", metavar="DIR", help="folder of intermediate files [system's default]"
    )
    arguments = parser.parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="benchmark_", dir=arguments.work))
    try:
        halves = [arguments.documents // 2, arguments.documents - arguments.documents // 2]
        for number, documents in enumerate(halves):
            write_file(work / f"half{number}", documents)
        inputs = [str(work / "half0"), str(work / "half1")]
        measure(
            "merge",
            [
                ROOT / "data_prep/merge_indexed.py",
                "--input",
                *inputs,
                "--output-prefix",
                work / "merged",
            ],
        )
        for name in inputs:
            Path(f"{name}.bin").unlink()
        measure("check", [ROOT / "data_prep/describe.py", work / "merged", "--check"])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def write_file(prefix: Path, documents: int) -> None:
    """Write a token file of documents of `IDS` zeros each."""
    whole = np.ones(CHUNK, dtype="<i4")

    # this process must stay small: its children's peak begins with its own
    def chunks(value: int) -> Iterator[np.ndarray[Any, Any]]:
        return (
            whole[: min(CHUNK, documents - first)] * np.int32(value)
            for first in range(0, documents, CHUNK)
        )

    with prefix.with_suffix(".idx").open("wb") as file:
        write_header(file, np.dtype(np.uint16), documents, documents)
        for chunk in chunks(IDS):
            file.write(chunk.data)
        write_offsets(file, chunks(IDS), 2)
        write_document_ends(file, chunks(1))
    with prefix.with_suffix(".bin").open("wb") as file:
        file.truncate(documents * IDS * 2)


def measure(what: str, command: list[str | Path]) -> None:
    """Run a command and print its seconds and peak memory (what it maps of files included)."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *map(str, command)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{what} ended with {os.waitstatus_to_exitcode(status)}")
    print(
        f"{what}: {time.monotonic() - start:.1f} s, peak memory {usage.ru_maxrss / 1000:,.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    cli.run(main)
