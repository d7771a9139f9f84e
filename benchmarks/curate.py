"""Documents per second of the curation steps, compared with plain datatrove, and an estimate.

    python benchmarks/curate.py --corpus corpus --items questions.jsonl --medline F.xml.gz \\
        [--jats articles] [--documents 3000]

Both read the same abstracts in the same run.

One process, one core; each step alone over the same documents in memory, the best of `--repeats`,
alternating with the peers. Memory: benchmarks/curate_memory.py.
"""

import gzip
import json
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

from data_prep.curation.registry import build_step
from data_prep.steps.decontamination.step import DecontaminationSettings
from data_prep.steps.dedup.exact import ExactDedupSettings
from data_prep.steps.dedup.minhash import MinhashDedupSettings
from data_prep.steps.filters.language_id import LanguageIdSettings
from data_prep.steps.filters.length import LengthSettings
from data_prep.steps.filters.medical import MedicalSettings
from data_prep.steps.filters.pii import PiiSettings
from data_prep.steps.filters.quality import QualitySettings, RepetitionSettings
from data_prep.steps.global_step import Context
from data_prep.text.words import Words
from galen import cli

FULL_BYTES = 48.1e9 * 4
"""Text of GAP-Replay: tokens of both splits (arXiv 2311.16079), four bytes each."""

Run = Callable[[Iterator[Document]], Any]


def load(corpus: Path, limit: int) -> list[Document]:
    """Return documents of a corpus."""
    documents: list[Document] = []
    for path in sorted(corpus.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                documents.append(
                    Document(text=record["text"], id=record["id"], metadata=record["metadata"])
                )
                if len(documents) == limit:
                    return documents
    return documents


def rate(run: Run, documents: list[Document], repeats: int) -> tuple[float, float]:
    """Return a step's best rate over copies of the documents, and the fraction that it drops."""
    best = 0.0
    remaining = 0
    for _ in range(repeats):
        copies = [
            Document(text=d.text, id=d.id, metadata=dict(d.metadata) | {"text_language": "en"})
            for d in documents
        ]
        start = time.perf_counter()
        remaining = sum(1 for _ in run(iter(copies)))
        best = max(best, len(documents) / (time.perf_counter() - start))
    return best, 1 - remaining / len(documents)


def runs(folder: Path, items: str) -> dict[str, tuple[Run, Run | None]]:
    """Return for each step how to run it, and datatrove's peer where one does the same work."""
    words: WordTokenizer = Words()
    contaminated = build_step(DecontaminationSettings(eval_datasets=[items], action="report"))
    contaminated.prepare(folder / "decontaminate")
    exact, near = (Context(folder / name, ["a"], lambda *_: None) for name in ("exact", "near"))
    peer = MinhashDedupSignature(
        str(folder / "peer"),
        MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="sha1")),
        language=words,
    )
    return {
        "language_id": (build_step(LanguageIdSettings(languages=["en"])).run, None),
        "length": (build_step(LengthSettings()).run, None),
        "quality": (build_step(QualitySettings()).run, GopherQualityFilter(language=words).run),
        "repetition": (
            build_step(RepetitionSettings()).run,
            GopherRepetitionFilter(language=words).run,
        ),
        "medical": (build_step(MedicalSettings()).run, None),
        "pii": (build_step(PiiSettings()).run, PIIFormatter().run),
        "exact_dedup (signatures)": (build_step(ExactDedupSettings()).collect(exact)[0].run, None),
        "minhash_dedup (signatures)": (
            build_step(MinhashDedupSettings()).collect(near)[0].run,
            lambda data: peer.run(data) or (),
        ),
        "decontaminate": (contaminated.run, None),
    }


def main() -> None:
    """Run the command."""
    arguments = _parser().parse_args()
    documents = load(arguments.corpus, arguments.documents)
    size = sum(len(document.text.encode()) for document in documents)
    print(
        f"{len(documents):,} abstracts of {size / len(documents):,.0f} bytes on average;"
        " documents/s on one core"
    )
    seconds = _time_steps(documents, arguments.items, arguments.repeats)
    if arguments.medline:
        reading = _time_medline(Path(arguments.medline))
        print(f"  {'reading MEDLINE':<28}{1 / reading:>9,.0f}")
        seconds += reading
    print(f"all steps in sequence: {1 / seconds:,.0f} documents/s per core")
    seconds_per_byte = seconds * len(documents) / size
    if arguments.jats:
        articles, read_size, reading = read_articles(arguments.jats, arguments.repeats)
        print(
            f"  {'reading full text (JATS)':<28}{articles / reading:>9,.1f} "
            f" {read_size / reading / 1e6:.2f} MB/s of text"
        )
        seconds_per_byte += reading / read_size
    hours = FULL_BYTES * seconds_per_byte / 3600
    cores = ", ".join(f"{hours / n:,.1f} h on {n} cores" for n in (16, 64, 256))
    print(
        f"GAP-Replay, {FULL_BYTES / 1e9:.0f} GB of text at {1e-6 / seconds_per_byte:.2f} MB/s per"
        f" core: {hours:,.0f} core hours; {cores}"
    )


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="curated corpus")
    parser.add_argument("--items", required=True, help="evaluation items, JSONL")
    parser.add_argument("--medline", help="a MEDLINE file, to time the reader")
    parser.add_argument(
        "--jats", type=Path, help="a folder of full texts in JATS, to time their reader"
    )
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=2)
    return parser


def _time_steps(documents: list[Document], items: str, repeats: int) -> float:
    """Print the speed of each step and of its peer; return the seconds of all per document."""
    seconds = 0.0
    with tempfile.TemporaryDirectory() as name:
        for step, (ours, peer) in runs(Path(name), items).items():
            speed, dropped = rate(ours, documents, repeats)
            line = f"  {step:<28}{speed:>9,.0f}  drops {dropped:.2%}"
            if peer:
                peer_speed, dropped = rate(peer, documents, repeats)
                line += f"  datatrove {peer_speed:>9,.0f}"
                if "signatures" not in step:
                    line += f"  drops {dropped:.2%}"
            seconds += 1 / speed
            print(line, flush=True)
    return seconds


def _time_medline(path: Path) -> float:
    """Return the seconds per document of reading a MEDLINE file."""
    from data_prep.readers.medline import MedlineReader

    start = time.perf_counter()
    count = 0
    for _ in MedlineReader(str(path.parent)).read_file(path.name):
        count += 1
    return (time.perf_counter() - start) / count


def read_articles(folder: Path, repeats: int) -> tuple[int, int, float]:
    """Read a folder of JATS files; return articles, bytes of text, and the best time (seconds)."""
    from data_prep.readers.jats import JatsReader

    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        reader = JatsReader(str(folder))
        texts = []
        for path in sorted(folder.glob("*.*xml")):
            texts += [document.text for document in reader.read_file(path.name)]
        best = min(best, time.perf_counter() - start)
    return len(texts), sum(len(text.encode()) for text in texts), best


if __name__ == "__main__":
    cli.run(main)
