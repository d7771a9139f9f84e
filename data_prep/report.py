"""The report of a curated corpus, one HTML file with figures.

    galen report-corpus CORPUS [--output report.html] [--no-samples]

reads manifest.json, statistics.json and the findings of the steps (duplicates.jsonl,
contamination.jsonl) in the folder that curate.py wrote, and writes CORPUS/report.html: documents
and tokens by source, language and year, lengths, the funnel of steps, samples, duplicates,
contamination, sources with licenses and hashes, steps and versions.
"""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.reporting import report_figures
from galen import cli, json_file, lock, manifest, page
from galen.atomic import write_text
from galen.errors import MALFORMED, DataError, as_data_error, malformed, one_line

SOURCE, LANGUAGE, YEAR, DOCUMENTS, TOKENS = range(5)
"""Columns of the cells of statistics.json."""

_MAX_REASONS = 25

SHOWN = 20
"""Clusters of duplicates and matches that the report shows; the files have all."""


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    import jinja2

    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("corpus", type=Path, metavar="CORPUS", help="output of `galen curate`")
    parser.add_argument(
        "--output", type=Path, metavar="F.html", help="the report [CORPUS/report.html]"
    )
    parser.add_argument(
        "--no-samples",
        action="store_true",
        help="show no text of any document, as for clinical notes",
    )
    arguments = parser.parse_args(argv)
    output = arguments.output or arguments.corpus / "report.html"
    errors = (*MALFORMED, AssertionError, jinja2.TemplateError)
    with as_data_error(
        lambda error: f"the files of {arguments.corpus} are damaged: {one_line(error)}", errors
    ):
        # before the lock, which makes the folder of the output
        html = render(arguments.corpus, samples=not arguments.no_samples)
    with lock.hold(output):
        write_text(output, html)
    print(f"wrote {output}")
    return 0


def render(corpus: Path, samples: bool = True) -> str:
    """Return the report of a corpus as HTML.

    Args:
        corpus: folder that curate.py wrote.
        samples: show texts of documents, unless the recipe says otherwise (`report.samples`).

    Raises:
        DataError: the folder is no curated corpus, or one without statistics.
    """
    record = manifest.read(corpus, stage="curate")
    path = corpus / "statistics.json"
    if not path.is_file():
        raise DataError(
            f"{corpus} has no statistics.json: curate it again with this version of Galen"
        )
    statistics = json_file.read_object(path)
    samples = samples and record["config"].get("report", {}).get("samples", True)
    steps = [step["step"] for step in record["config"]["steps"]]
    return page.render(
        Path(__file__).parent / "reporting" / "report.html.j2",
        title=_title(corpus.resolve().name),
        manifest=record,
        counts=statistics["counts"],
        tokens=statistics["tokens"],
        tables=[
            ("source", table_of(statistics["cells"], SOURCE)),
            ("language", table_of(statistics["cells"], LANGUAGE)),
        ],
        figures=figures_of(statistics),
        dropped=dropped_reasons(statistics["counts"]),
        funnel=funnel(statistics["counts"], steps),
        replaces_personal_data="pii" in steps,
        shows_samples=samples,
        samples=statistics["samples"] if samples else {},
        kept_samples=statistics["kept_samples"] if samples else [],
        findings=statistics["steps"],
        clusters=_first_lines(corpus / "duplicates.jsonl"),
        matches=_first_lines(corpus / "contamination.jsonl"),
    )


def _title(name: str) -> str:
    """Return the title of the page of the corpus folder `name`."""
    return "Corpus" if name.lower() == "corpus" else f"Corpus {name}"


def table_of(cells: list[list[Any]], column: int) -> list[tuple[str, int, int]]:
    """Return documents and tokens by one key of the cells, the largest first.

    Args:
        cells: rows of source, language, year, documents and tokens.
        column: SOURCE, LANGUAGE or YEAR.
    """
    documents: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for cell in cells:
        documents[cell[column]] += cell[DOCUMENTS]
        tokens[cell[column]] += cell[TOKENS]
    return [(key, documents[key], count) for key, count in tokens.most_common()]


def funnel(counts: dict[str, Any], steps: list[str]) -> list[tuple[str, int, int]]:
    """Return, for the reader and each step, the documents it dropped and those left after it."""
    dropped: Counter[str] = Counter()
    for reason, count in counts["dropped"].items():
        dropped[reason.partition(":")[0]] += count
    left = counts["read"]
    rows = []
    for name in dict.fromkeys(["reader", *steps]):
        left -= dropped[name]
        rows.append((name, dropped[name], left))
    assert left == counts["kept"], "the counts were checked when the corpus was built"
    return rows


def figures_of(statistics: dict[str, Any]) -> dict[str, str]:
    """Return the figures as SVG, by their titles."""
    by_year = table_of(statistics["cells"], YEAR)
    years = {int(year): count for year, count, _ in by_year if year.isdecimal()}
    lengths = {int(bits): count for bits, count in statistics["lengths"].items()}
    figures: dict[str, str] = {}
    if years:
        figures["Documents by year of publication"] = report_figures.years(years)
    if lengths:
        figures["Documents by length"] = report_figures.lengths(lengths)
    return figures


def dropped_reasons(counts: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the most frequent reasons for which documents were dropped, and how many each."""
    dropped = sorted(counts["dropped"].items(), key=lambda pair: -pair[1])
    return dropped[:_MAX_REASONS]


def _first_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines, malformed(path):
        return [json.loads(line) for line in islice(lines, SHOWN)]


if __name__ == "__main__":
    cli.run(main)
