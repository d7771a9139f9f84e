r"""Multiple-choice questions from a curated corpus.

Which of four MeSH headings is a major topic of an abstract.

    galen mesh-questions --corpus corpus --split test \
        --output questions/test.jsonl --count 500

One question a record at most. The wrong options are headings that keep the same company as the
right one and are not assigned to the record. Heading, options and their order depend
on a hash of --seed and the PMID alone, so a record's question is the same whatever the order or the
number of the others.
"""

import argparse
import gzip
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.curation.recipe import SPLITS
from data_prep.text.hashing import stable_hash, unit_hash
from galen import cli, lock, manifest
from galen.atomic import atomic_file
from galen.errors import DataError, UsageError, one_line
from galen.progress import Progress
from galen.run_folder import Identity, RunFiles, finished

logger = logging.getLogger(__name__)

QUESTION = "Which of these MeSH headings is a major topic of this abstract?"
LETTERS = "ABCD"
# NLM's check tags (indexing policy, "Check Tags"): routinely ticked for species, sex, age and
# period, they say little of the topic.
CHECK_TAGS = frozenset(
    [
        "Adolescent", "Adult", "Aged", "Aged, 80 and over", "Animals", "Bees", "Cats", "Cattle",
        "Chick Embryo", "Child", "Child, Preschool", "Chlorocebus aethiops", "Cricetinae", "Dogs",
        "Female", "Guinea Pigs", "Horses", "Humans", "Infant", "Infant, Newborn", "Male",
        "Mesocricetus", "Mice", "Middle Aged", "Pregnancy", "Rabbits", "Rats", "Sheep", "Swine",
        "United States", "Young Adult",
    ]
)  # fmt: skip

# Measured on the two files of pubmed_sample.yaml: "the most common option" is right in 27 % with
# 0.6, in 39 % with 0, in 16 % with 1.
COMMONNESS = 0.6


class Companions:
    """For each frequent major topic, the other headings that occur together with the same headings.

    Records carry no MeSH tree numbers, so the branch is approximated: headings are compared by the
    cosine of their rows in the matrix of positive pointwise mutual information (Church and Hanks,
    1990) of headings assigned to the same record. Headings of one branch ("Myocardial Infarction",
    "Angina Pectoris") have alike rows even if they never are on one record.

    Args:
        records: pairs of a record's topic headings and its major ones, as `topics` gives.
        minimum: how many records a heading must be a major topic of.
        limit: at most so many headings, the most frequent; memory grows with its square (4 bytes
            each, three matrices).
    """

    def __init__(
        self,
        records: Iterable[tuple[Sequence[str], Sequence[str]]],
        minimum: int = 3,
        limit: int = 4000,
    ) -> None:
        lists = []
        majors = Counter[str]()
        for every, major in records:
            lists.append(every)
            majors.update(major)
        ranked = sorted(
            ((count, name) for name, count in majors.items() if count >= minimum),
            key=lambda pair: (-pair[0], pair[1]),
        )
        self.counts = {name: count for count, name in ranked[:limit]}
        self.names = sorted(self.counts)
        self._index = {name: i for i, name in enumerate(self.names)}
        self._similarity = _cosines(_positive_information(self._together(lists)))

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def nearest(self, name: str, count: int, without: Iterable[str]) -> list[str]:
        """Return the `count` headings most like `name`, best first.

        `name` and those of `without` are excluded.
        """
        excluded = {name, *without}
        order = np.argsort(-self._similarity[self._index[name]], kind="stable")
        found = (self.names[i] for i in order)
        return [
            other
            for other, _ in zip(
                (other for other in found if other not in excluded), range(count), strict=False
            )
        ]

    def _together(self, lists: Iterable[Sequence[str]]) -> np.ndarray[Any, Any]:
        """Return how many records each pair of headings shares.

        The diagonal holds the records of each.
        """
        counts = np.zeros((len(self.names), len(self.names)), dtype=np.float32)
        for every in lists:
            present = [self._index[name] for name in every if name in self._index]
            counts[np.ix_(present, present)] += 1
        return counts


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    for name, least in (("count", 1), ("max_context_words", 1), ("neighbors", 3)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least {least}")
    with lock.hold(arguments.output):
        _make(arguments, Path(arguments.corpus), Path(arguments.output))
    return 0


def _make(arguments: argparse.Namespace, corpus: Path, output: Path) -> None:
    splits = manifest.read(corpus, stage="curate")["counts"]["splits"]
    config = {
        name: getattr(arguments, name)
        for name in ("split", "count", "seed", "max_context_words", "neighbors", "literal")
    }
    inputs = [manifest.describe_file(corpus / manifest.NAME)]
    identity = Identity(config, inputs)
    manifest_path = output.with_suffix(".manifest.json")
    files = RunFiles(output, [output])
    existing = finished(output, manifest_path, "mesh_questions", identity)
    if existing is not None:
        files.end()  # killed after its manifest
        print(f"{output} is already complete: {existing['counts']['questions']:,} questions")
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
    import orjson

    with Progress("MeSH headings", splits.get("train"), unit="records") as progress:
        companions = Companions(topics(record) for record in _records(corpus, "train", progress))
    if not companions.names:
        raise DataError(
            f"no record of the train split of {corpus} has enough MeSH headings: questions are made"
            " of MEDLINE records"
        )
    with Progress("questions", splits.get(arguments.split), unit="records") as progress:
        questions = _questions(corpus, companions, arguments, progress)
    chosen = choose(questions, arguments.count)
    counts = {
        "possible": len(questions),
        "questions": len(chosen),
        "literal": sum(question["literal"] for question in chosen),
    }
    if not chosen:
        raise DataError(
            f"no question can be made from the {arguments.split} split of {corpus}: its records"
            " have too few MeSH major topics"
        )
    with atomic_file(output) as temporary:
        temporary.write_bytes(
            b"".join(
                orjson.dumps(question, option=orjson.OPT_APPEND_NEWLINE) for question in chosen
            )
        )
    return counts


def make_question(
    record: dict[str, Any], companions: Companions, seed: int, limit: int | None, neighbors: int
) -> dict[str, Any] | None:
    """Return the question of a record, or None if it has none.

    `literal` says whether the right heading's words are in the context.

    A heading whose words are not in the context is preferred; then no wrong option's words
    are there either, so that the presence of the words never gives the answer away. Among its
    `neighbors` companions the wrong options are drawn with a weight that makes them about as
    common as right ones: else the more common option would more often be the right one.
    """
    every, major = topics(record)
    if "pmid" not in record["metadata"]:
        return None
    record_id = record["id"]
    context = _cut(record["text"], limit)
    present = words(context)
    candidates = sorted(
        (name for name in major if name in companions),
        key=lambda name: (is_in_text(name, present), unit_hash(seed, record_id, name)),
    )
    for right in candidates:
        literal = is_in_text(right, present)
        near = [
            name
            for name in companions.nearest(right, neighbors, every)
            if literal or not is_in_text(name, present)
        ]
        if len(near) < 3:
            continue
        # weighted sampling without replacement by sorting u^(1/w): Efraimidis and Spirakis, 2006
        near.sort(
            key=lambda name: (
                -(unit_hash(seed, record_id, name) ** (companions.counts[name] ** -COMMONNESS))
            )
        )
        options = near[:3]
        place = stable_hash(seed, record_id, "place") % 4
        options.insert(place, right)
        return {
            "id": f"mesh-{record_id}",
            "context": context,
            "question": QUESTION,
            "options": dict(zip(LETTERS, options, strict=True)),
            "answer": LETTERS[place],
            "pmid": record["metadata"]["pmid"],
            "literal": literal,
        }
    return None


def choose(questions: list[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    """Return at most `count` of the questions, in the order given.

    Those whose answer is not in the context come first.
    """
    ordered = sorted(questions, key=lambda question: question["literal"])  # stable
    return ordered[:count]


def _questions(
    corpus: Path, companions: Companions, arguments: argparse.Namespace, progress: Progress
) -> list[dict[str, Any]]:
    """Return the questions of a split in the order of a hash of their PMID."""
    found = []
    for record in _records(corpus, arguments.split, progress):
        question = make_question(
            record, companions, arguments.seed, arguments.max_context_words, arguments.neighbors
        )
        if question is not None and (arguments.literal != "never" or not question["literal"]):
            found.append(question)
    return sorted(
        found,
        key=lambda question: (
            unit_hash(arguments.seed, question["pmid"], "order"),
            question["pmid"],
        ),
    )


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


def _cut(text: str, limit: int | None) -> str:
    """Return the first `limit` words of a text, its lines kept."""
    if limit is None:
        return text
    found = re.match(rf"\s*(?:\S+\s+){{0,{limit - 1}}}\S+", text)
    return found[0] if found else text


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="DIR", help="output of `galen curate`")
    parser.add_argument(
        "--split",
        required=True,
        choices=SPLITS,
        help="records to ask about; statistics of headings are of the train split",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="F.jsonl",
        help="the questions; F.manifest.json is written beside it",
    )
    parser.add_argument("--count", type=int, metavar="N", help="at most so many [all]")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed, other questions [0]"
    )
    parser.add_argument(
        "--max-context-words",
        type=int,
        metavar="W",
        help="truncate the abstract to so many words [no limit]",
    )
    parser.add_argument(
        "--neighbors",
        type=int,
        default=50,
        metavar="K",
        help="wrong options come from the K nearest companions; fewer: harder [50]",
    )
    parser.add_argument(
        "--literal",
        choices=["fill", "never"],
        default="fill",
        help="questions whose answer is verbatim in the context: only to fill up to N, after all"
        " others, or never [fill]",
    )
    return parser


def is_topic(name: str) -> bool:
    """Say whether this heading is a topic.

    Check tags and periods ("History, 19th Century") are not.
    """
    return name not in CHECK_TAGS and not name.startswith("History, ")


def _is_heading(value: Any) -> bool:
    if (
        not isinstance(value, Mapping)
        or not isinstance(value.get("name"), str)
        or "major" not in value
    ):
        return False
    return is_topic(value["name"])


def topics(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the record's topic headings and the major topics among them, without duplicates."""
    # as the reader of MEDLINE writes it; other sources have none, or another kind
    assigned = record["metadata"].get("mesh")
    headings = (
        [heading for heading in assigned if _is_heading(heading)]
        if isinstance(assigned, list)
        else []
    )
    every = list(dict.fromkeys(heading["name"] for heading in headings))
    return every, list(dict.fromkeys(heading["name"] for heading in headings if heading["major"]))


def words(text: str) -> set[str]:
    """Return the words of a text for comparison: lower case, plural s taken off."""
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower())}


def is_in_text(heading: str, text_words: set[str]) -> bool:
    """Say whether all words of the heading are in the text."""
    return words(heading) <= text_words


def _positive_information(together: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return max(0, log(p(a, b) / p(a) p(b))) of each pair of different headings."""
    np.fill_diagonal(together, 0)
    single = together.sum(axis=1)
    total = max(float(together.sum()), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        together *= total / single[:, None] / single[None, :]
        np.log(together, out=together)
    return np.nan_to_num(np.maximum(together, 0), copy=False, nan=0.0)


def _cosines(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the cosine of each pair of rows.

    It is rounded so that the order does not depend on the last bit of a library's sums.
    """
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.round(rows @ rows.T, 4)


if __name__ == "__main__":
    cli.run(main)
