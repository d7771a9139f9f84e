r"""Multiple-choice questions from a curated corpus.

Each question asks which of four MeSH headings is a major topic of an abstract.

    galen mesh-questions --corpus corpus --split test \
        --output questions/test.jsonl --count 500

At most one question is made from a record. The wrong options are headings that occur with the same
other headings as the correct one, but are not assigned to the record. Headings that are a major
topic of few training records are skipped (--min-records). The heading, the options and their order
depend only on a hash of --seed and the PMID, so a record's question does not depend on the others.
"""

import argparse
import gzip
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.curation.recipe import SPLITS
from data_prep.mesh.companions import Companions
from data_prep.mesh.headings import topics
from data_prep.mesh.questions import choose, make_question
from data_prep.text.hashing import unit_hash
from galen import cli, lock, manifest
from galen.atomic import atomic_file
from galen.errors import DataError, UsageError, one_line
from galen.progress import Progress
from galen.run_folder import RunFiles, finished
from galen.run_identity import Identity

logger = logging.getLogger(__name__)

_MINIMUM = {"count": 1, "max_context_words": 1, "neighbors": 3, "min_records": 1}
"""Smallest values of options."""
_CONFIG = ("split", "count", "seed", "max_context_words", "neighbors", "min_records", "literal")
"""Options that decide the output."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    for name, minimum in _MINIMUM.items():
        value = getattr(arguments, name)
        if value is not None and value < minimum:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least {minimum}")
    with lock.hold(arguments.output):
        _run(arguments, Path(arguments.corpus), Path(arguments.output))
    return 0


def _run(arguments: argparse.Namespace, corpus: Path, output: Path) -> None:
    splits = manifest.read(corpus, stage="curate")["counts"]["splits"]
    config = {name: getattr(arguments, name) for name in _CONFIG}
    inputs = [manifest.describe_file(corpus / manifest.NAME)]
    identity = Identity(config, inputs)
    manifest_path = output.with_suffix(".manifest.json")
    files = RunFiles(output, [output])
    existing = finished(output, manifest_path, "mesh_questions", identity)
    if existing is not None:
        files.end()  # killed after its manifest
        logger.info(f"{output} is already complete: {existing['counts']['questions']:,} questions")
        return
    with files.working(identity):
        counts = _write_questions(arguments, corpus, output, splits)
        manifest.write(
            manifest_path,
            stage="mesh_questions",
            inputs=inputs,
            config=config,
            outputs=[output],
            counts=counts,
        )
    print("\n".join(f"{label:<32}{count:>8,}" for label, count in counts.items()))
    if arguments.count and counts["questions"] < arguments.count:
        logger.warning(
            f"only {counts['questions']:,} of the requested {arguments.count:,} questions could be"
            " made"
        )


def _write_questions(
    arguments: argparse.Namespace, corpus: Path, output: Path, splits: dict[str, int]
) -> dict[str, int]:
    """Write the questions; return the counts for the manifest."""
    import orjson

    companions = _companions(arguments.min_records, corpus, splits)
    with Progress("questions", splits.get(arguments.split), unit="records") as progress:
        questions = _questions(corpus, companions, arguments, progress)
    chosen = choose(questions, arguments.count)
    if not chosen:
        raise DataError(
            f"no question can be made from the {arguments.split} split of {corpus}: its records"
            f" have too few MeSH major topics that {arguments.min_records:,} training records have"
            " (--min-records)"
        )
    with atomic_file(output) as temporary, temporary.open("wb") as file:
        for question in chosen:
            file.write(orjson.dumps(question, option=orjson.OPT_APPEND_NEWLINE))
    return {
        "possible": len(questions),
        "questions": len(chosen),
        "literal": sum(question["literal"] for question in chosen),
    }


def _companions(min_records: int, corpus: Path, splits: dict[str, int]) -> Companions:
    """Return the statistics of the train split's headings; log how many headings are skipped.

    Raises:
        DataError: no heading is frequent enough.
    """
    with Progress("MeSH headings", splits.get("train"), unit="records") as progress:
        records = (topics(record) for record in _records(corpus, "train", progress))
        companions = Companions(records, min_records)
    if not companions.num_majors:
        raise DataError(
            f"no record of the train split of {corpus} has enough MeSH headings: questions are made"
            " from MEDLINE records"
        )
    skipped = (
        f"{companions.num_rare:,} of {companions.num_majors:,} MeSH headings are skipped: each is"
        f" a major topic of fewer than {min_records:,} training records (--min-records)"
    )
    if not companions.names:
        raise DataError(f"{corpus}: {skipped}")
    if companions.num_rare:
        logger.info(skipped)
    if companions.num_over_limit:
        logger.info(
            f"{companions.num_over_limit:,} MeSH headings are skipped: only the"
            f" {len(companions.names):,} most frequent ones are used"
        )
    return companions


def _questions(
    corpus: Path, companions: Companions, arguments: argparse.Namespace, progress: Progress
) -> list[dict[str, Any]]:
    """Return the questions of a split, in the order of a hash of their PMID."""
    questions = []
    for record in _records(corpus, arguments.split, progress):
        question = make_question(
            record, companions, arguments.seed, arguments.max_context_words, arguments.neighbors
        )
        if question is None or (question["literal"] and arguments.literal == "never"):
            continue
        questions.append(question)

    def key(question: dict[str, Any]) -> tuple[float, str]:
        pmid = question["pmid"]
        return unit_hash(arguments.seed, pmid, "order"), pmid

    return sorted(questions, key=key)


def _records(corpus: Path, split: str, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield the records of a split."""
    import orjson

    files = sorted((corpus / split).glob("*.jsonl.gz"))
    if not files:
        raise DataError(f"{corpus} has no {split} split")
    for path in files:
        try:
            with gzip.open(path) as stream:
                for line in stream:
                    yield orjson.loads(line)
                    progress.update()
        except (EOFError, ValueError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged: {one_line(error)}") from None


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="DIR", help="output of `galen curate`")
    parser.add_argument(
        "--split",
        required=True,
        choices=SPLITS,
        help="split to make questions from; heading statistics are of the train split",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="F.jsonl",
        help="the questions; F.manifest.json is written beside it",
    )
    parser.add_argument("--count", type=int, metavar="N", help="maximum number of questions [all]")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="random seed of the questions [0]"
    )
    parser.add_argument(
        "--max-context-words",
        type=int,
        metavar="W",
        help="truncate abstracts to W words [no limit]",
    )
    parser.add_argument(
        "--neighbors",
        type=int,
        default=50,
        metavar="K",
        help="draw wrong options from the K most similar headings; fewer: harder [50]",
    )
    parser.add_argument(
        "--min-records",
        type=int,
        default=3,
        metavar="N",
        help="skip headings that are a major topic of fewer than N training records [3]",
    )
    parser.add_argument(
        "--literal",
        choices=["fill", "never"],
        default="fill",
        help="questions whose answer is verbatim in the context: only to reach --count after all"
        " others, or never [fill]",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
