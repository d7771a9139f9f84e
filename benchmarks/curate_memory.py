"""Peak memory of the steps over all documents, at two sizes, extrapolated to GAP-Replay.

    python benchmarks/curate_memory.py features [--sizes 500000 2000000]
    python benchmarks/curate_memory.py command --corpus corpus/train [--sizes 25000 100000] \\
        [--workers 2]

GAP-Replay has 21 million documents.

`features` lets each step decide over random features, each step and size in its own process.
`command` runs data_prep/curate.py with one step at a time over edits of real abstracts (every fifth
word another one of the corpus, lines of three sentences) and watches all its processes; the largest
counts.
"""

import argparse
import contextlib
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from data_prep.curation.registry import build_step
from data_prep.steps.dedup.article_id import DedupByIdSettings
from data_prep.steps.dedup.exact import ExactDedupSettings
from data_prep.steps.dedup.minhash import MinhashDedupSettings
from data_prep.steps.dedup.repeated_lines import LineDedupSettings
from data_prep.steps.global_step import Context
from data_prep.steps.mixture.mixture import ROW as MIXTURE_ROW
from data_prep.steps.mixture.mixture import MixtureSettings
from galen import cli

FULL = 21_000_000
"""Documents of GAP-Replay."""

LINES = 16
"""Long lines a document: 4.9 million papers of 60, the others of 2."""

SETTINGS: dict[str, Any] = {
    "exact_dedup": ExactDedupSettings(),
    "dedup_by_id": DedupByIdSettings(keys=["pmid"]),
    "minhash_dedup": MinhashDedupSettings(),
    "line_dedup": LineDedupSettings(),
    "mixture": MixtureSettings(replay={"a": 0.1}),
}
_TASKS = 20


def features_of(
    step: str, count: int, chance: np.random.Generator
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield path and content of the features of one task; 2 % of documents are duplicates."""

    def hashes(*shape: int) -> np.ndarray[Any, Any]:
        made = chance.integers(0, 2**64 - 1, shape, dtype=np.uint64)
        made[..., : count // 50] = made[..., count // 2 : count // 2 + count // 50]
        return made

    if step == "exact_dedup":
        from data_prep.steps.dedup.exact import ROW

        yield "features", np.ascontiguousarray(hashes(2, count).T).view(ROW).reshape(-1)
    elif step == "dedup_by_id":
        yield "features/ids", np.stack([np.arange(count, dtype=np.uint64), hashes(count)], axis=1)
        yield "features/lengths", np.full(count, 1000, dtype=np.uint32)
    elif step == "minhash_dedup":
        from data_prep.steps.dedup.minhash import FEATURES

        yield "signatures", hashes(14, count)
        yield "features", np.array([(1000, b"x" * 20, True)], dtype=FEATURES).repeat(count)
    elif step == "line_dedup":
        yield "features/lines", np.sort(hashes(count * LINES))
        yield "features/documents", np.ones(count * LINES, dtype=np.uint32)
    else:
        rows = np.zeros(count, dtype=MIXTURE_ROW)
        rows["position"], rows["tokens"] = chance.random(count), 1000
        yield "features", rows


def decide(step: str, count: int) -> None:
    """Let a step decide over `count` documents, and print the peak memory in MB."""
    chance = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        for task in range(_TASKS):
            for kind, rows in features_of(step, count // _TASKS, chance):
                path = Path(name) / kind / f"{task:05d}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, rows)
        answer = subprocess.run(
            [sys.executable, __file__, "features", "--decide", step, "--folder", name],
            stdout=subprocess.PIPE,
            check=True,
        )
    print(answer.stdout.decode().strip())


def decide_here(step: str, folder: str) -> None:
    """Decide, task by task, in a process of its own; print the peak memory in MB."""

    def run(label: str, steps: list[Any], tasks: int) -> None:
        for rank in range(tasks):
            for _ in steps[0].run(None, rank, tasks):
                pass

    build_step(SETTINGS[step]).decide(Context(Path(folder), ["a", "b"] * (_TASKS // 2), run))
    # not getrusage: its maximum is inherited from the process that started this one
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1000)


def edits(corpus: Path, count: int) -> Iterator[dict[str, str]]:
    """Yield `count` records whose texts are edits of real ones."""
    texts = []
    for path in sorted(corpus.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    words = " ".join(texts[:2000]).split()
    chance = random.Random(1)
    for number in range(count):
        made = texts[number % len(texts)].split()
        for place in range(number % 5, len(made), 5):
            made[place] = chance.choice(words)
        sentences = " ".join(made).split(". ")
        text = "\n".join(
            ". ".join(sentences[start : start + 3]) for start in range(0, len(sentences), 3)
        )
        yield {"id": str(number), "text": text}


def write_records(corpus: Path, count: int, folder: Path) -> None:
    """Write edits of real texts to as many files as there are tasks."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        names = [folder / f"{n}.jsonl.gz" for n in range(_TASKS)]
        files = [
            stack.enter_context(gzip.open(path, "wt", compresslevel=1, encoding="utf-8"))
            for path in names
        ]
        for number, record in enumerate(edits(corpus, count)):
            files[number % _TASKS].write(json.dumps(record) + "\n")


def command(step: str, records: Path, folder: Path, workers: int) -> tuple[float, float, float]:
    """Run curate.py with one step; return peak memory of command and largest worker, and seconds.

    Memory is resident, in MB.
    """
    settings = {"step": step} | ({"keys": ["pmid"]} if step == "dedup_by_id" else {})
    recipe = folder / "recipe.yaml"
    sources = [{"reader": "records", "path": str(path)} for path in sorted(records.iterdir())]
    split = {"train": 1, "validation": 0, "test": 0}
    recipe.write_text(
        json.dumps(
            {
                "output": str(folder / f"{step}-{records.name}"),
                "sources": sources,
                "steps": [settings],
                "split": split,
            }
        )
    )
    program = str(Path(__file__).parents[1] / "data_prep/curate.py")
    start = time.monotonic()
    process = psutil.Popen(
        [sys.executable, program, str(recipe), "--workers", str(workers)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    own = largest = 0
    while process.poll() is None:
        try:
            own = max(own, process.memory_info().rss)
            largest = max(
                [largest, *(child.memory_info().rss for child in process.children(recursive=True))]
            )
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"curate.py failed with {step}")
    return own / 1e6, largest / 1e6, time.monotonic() - start


def report(label: str, sizes: list[int], peaks: list[float]) -> None:
    """Print the growth between two sizes and what follows for all documents."""
    slope = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    full = (peaks[1] + slope * (FULL - sizes[1])) / 1000
    print(
        f"{label}: {peaks[0]:,.0f} MB for {sizes[0]:,} documents, {peaks[1]:,.0f} MB for"
        f" {sizes[1]:,}: {slope * 1e6:,.0f} bytes each, {full:.1f} GB for {FULL:,}",
        flush=True,
    )


def measure(
    run: Callable[[str, int], list[float]], labels: list[str], steps: list[str], sizes: list[int]
) -> None:
    """Run every step at both sizes and print what comes out."""
    for step in steps:
        peaks = [run(step, size) for size in sizes]
        for place, label in enumerate(labels):
            report(f"{step}{label}", sizes, [found[place] for found in peaks])


def main() -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("what", choices=["features", "command"])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--sizes", type=int, nargs=2)
    parser.add_argument("--steps", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--decide", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "command" and arguments.corpus is None:
        parser.error("command needs --corpus")
    if arguments.folder:
        decide_here(arguments.decide, arguments.folder)
    elif arguments.decide:
        decide(arguments.decide, arguments.count)
    elif arguments.what == "features":

        def by_features(step: str, size: int) -> list[float]:
            options = ["features", "--decide", step, "--count", str(size)]
            return [
                float(
                    subprocess.run(
                        [sys.executable, __file__, *options], stdout=subprocess.PIPE, check=True
                    ).stdout
                )
            ]

        measure(by_features, [""], arguments.steps, arguments.sizes or [500_000, 2_000_000])
    else:
        with tempfile.TemporaryDirectory() as name:
            sizes = arguments.sizes or [25_000, 100_000]
            for size in sizes:
                write_records(arguments.corpus, size, Path(name) / str(size))

            def by_command(step: str, size: int) -> list[float]:
                own, largest, seconds = command(
                    step, Path(name) / str(size), Path(name), arguments.workers
                )
                print(f"  {step}, {size:,} documents: {seconds:,.0f} s", flush=True)
                return [own, largest]

            measure(
                by_command, [", the command itself", ", its largest worker"], arguments.steps, sizes
            )


if __name__ == "__main__":
    cli.run(main)
