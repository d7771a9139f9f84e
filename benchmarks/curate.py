"""Documents a second of the steps of curation, beside plain datatrove on the same abstracts in the same run; memory by size; an estimate.

    python benchmarks/curate.py --corpus corpus --items questions.jsonl --medline F.xml.gz [--documents 3000]

One process, one core; each step alone over the same documents in memory, the best of `--repeats`, the peers in turn with ours. Then the
memory that the steps over all documents take while they decide, measured at two sizes, and what follows for 21 million documents.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from datatrove.pipeline.formatters.pii import PIIFormatter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from data_prep.corpus_step import Context
from data_prep.registry import STEPS
from data_prep.steps import Quality
from data_prep.words import Words

FULL = 21_000_000
"""Documents of GAP-Replay."""

FULL_BYTES = 48.1e9 * 4
"""Its text: tokens of both splits (arXiv 2311.16079), four bytes each."""

Run = Callable[[Iterator[Document]], Any]


def load(corpus: Path, most: int) -> list[Document]:
    """Return documents of a corpus."""
    documents: list[Document] = []
    for path in sorted(corpus.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                documents.append(Document(text=record["text"], id=record["id"], metadata=record["metadata"]))
                if len(documents) == most:
                    return documents
    return documents


def rate(run: Run, documents: list[Document], repeats: int) -> tuple[float, float]:
    """Return the best rate of a step over fresh copies of the documents, and the share that it drops."""
    best, left = 0.0, 0
    for _ in range(repeats):
        copies = [Document(text=d.text, id=d.id, metadata=dict(d.metadata) | {"text_language": "en"}) for d in documents]
        start = time.perf_counter()
        left = sum(1 for _ in run(iter(copies)))
        best = max(best, len(documents) / (time.perf_counter() - start))
    return best, 1 - left / len(documents)


def runs(folder: Path, items: str) -> dict[str, tuple[Run, Run | None]]:
    """Return for each step how to run it, and its peer where datatrove has one with the same work."""
    words: WordTokenizer = Words()
    steps: Any = STEPS
    quality = {
        name: value for name, value in vars(Quality()).items() if name in Quality.__dataclass_fields__ and name not in ("step", "sources")
    }
    contaminated: Any = STEPS["decontaminate"](against=[items], fields=["question", "options", "context"], action="report")
    contaminated.prepare(folder / "decontaminate")
    context = Context(folder / "near", ["a"], lambda *_: None)
    near: Any = STEPS["near_duplicate"]()
    exact: Any = STEPS["duplicate"]()
    peer = MinhashDedupSignature(str(folder / "peer"), MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="sha1")), language=words)
    made: dict[str, tuple[Run, Run | None]] = {
        "language_id": (steps["language_id"](keep=["en"]).run, None),
        "length": (steps["length"]().run, None),
        "quality": (steps["quality"](**quality).run, GopherQualityFilter(language=words).run),
        "repetition": (steps["repetition"]().run, GopherRepetitionFilter(language=words).run),
        "medical": (steps["medical"]().run, None),
        "pii": (steps["pii"]().run, PIIFormatter().run),
        "duplicate (notes)": (exact.notes(Context(folder / "exact", ["a"], lambda *_: None))[0].run, None),
        "near_duplicate (signatures)": (near.notes(context)[0].run, lambda data: peer.run(data) or ()),
        "decontaminate": (contaminated.run, None),
    }
    return made


def memory(step: str, count: int) -> float:
    """Return the peak memory in MB of a process of its own that decides for `count` documents in one task."""
    answer = subprocess.run([sys.executable, __file__, "--decide", step, "--count", str(count)], capture_output=True, text=True, check=True)
    return float(answer.stdout)


def decide(step: str, count: int) -> None:
    """In a process of its own: let a step decide for `count` documents of random notes, and print the peak memory."""
    import numpy as np

    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        context = Context(Path(name), ["a"], lambda *_: None)
        notes = Path(name) / "notes"
        made: Any = STEPS[step](**({"keys": ["pmid"], "prefer": []} if step == "identifier" else {}))
        if step == "duplicate":
            from data_prep.dedup.duplicate import ROW

            _save(notes / "00000.npy", random.integers(0, 2**63, (count, 2), dtype=np.uint64).view(ROW).reshape(-1))
        else:
            hashes = random.integers(0, 2**63, count, dtype=np.uint64)
            hashes[: count // 50] = hashes[count // 2 : count // 2 + count // 50]  # 2 % are there twice
            _save(notes / "names/00000.npy", np.stack([np.arange(count, dtype=np.uint64), hashes], axis=1))
            _save(notes / "lengths/00000.npy", np.full(count, 1000, dtype=np.uint32))
        made.decide(context)
    # not getrusage: its maximum is inherited from the process that started this one
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1000)


def _save(path: Path, rows: Any) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, rows)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--items")
    parser.add_argument("--medline", help="a MEDLINE file, to time the reader")
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--decide", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.decide:
        decide(arguments.decide, arguments.count)
        return
    documents = load(arguments.corpus, arguments.documents)
    size = sum(len(document.text.encode()) for document in documents)
    print(f"{len(documents):,} abstracts of {size / len(documents):,.0f} bytes on average; documents/s on one core")
    total = 0.0
    with tempfile.TemporaryDirectory() as name:
        for step, (ours, peer) in runs(Path(name), arguments.items).items():
            found, dropped = rate(ours, documents, arguments.repeats)
            line = f"  {step:<28}{found:>9,.0f}  drops {dropped:.2%}"
            if peer:
                beside, dropped = rate(peer, documents, arguments.repeats)
                line += f"  datatrove {beside:>9,.0f}" + (f"  drops {dropped:.2%}" if "signatures" not in step else "")
            total += 1 / found
            print(line, flush=True)
    if arguments.medline:
        start, count = time.perf_counter(), 0
        from data_prep.readers.medline import MedlineReader

        path = Path(arguments.medline)
        for _ in MedlineReader(str(path.parent)).read_file(path.name):
            count += 1
        print(f"  {'reading MEDLINE':<28}{count / (time.perf_counter() - start):>9,.0f}")
        total += (time.perf_counter() - start) / count
    print(f"all of them one after the other: {1 / total:,.0f} documents/s a core")
    bytes_a_second = size / len(documents) / total
    hours = FULL_BYTES / bytes_a_second / 3600
    cores = ", ".join(f"{hours / n:,.1f} h on {n} cores" for n in (16, 64, 256))
    print(f"GAP-Replay, {FULL_BYTES / 1e9:.0f} GB of text at {bytes_a_second / 1e6:.2f} MB/s a core: {hours:,.0f} core hours; {cores}")
    for step in ("duplicate", "identifier"):
        small, large = memory(step, 500_000), memory(step, 2_000_000)
        slope = (large - small) / 1.5e6
        print(
            f"deciding {step}: {small:,.0f} MB for 0.5 million documents, {large:,.0f} MB for 2 million: {slope * 1e6:.0f} bytes each, "
            f"{(large + slope * (FULL - 2e6)) / 1000:.1f} GB for {FULL:,}"
        )


if __name__ == "__main__":
    main()
