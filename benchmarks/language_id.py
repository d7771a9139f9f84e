"""Accuracy of language identification on real MEDLINE records.

Vernacular titles, English abstracts below them, abstracts in other languages.

    python benchmarks/language_id.py pubmed20n0014.xml.gz pubmed21n1298.xml.gz

The record's language is taken as the truth for titles of 20 letters or more. Titles in non-Latin
scripts are transliterated in MEDLINE and excluded.
"""

import gzip
import time
from collections import Counter

from lxml import etree

from data_prep.text.language_identification import language_fractions
from galen import cli

CODES = {
    "ger": "de",
    "fre": "fr",
    "ita": "it",
    "pol": "pl",
    "spa": "es",
    "por": "pt",
    "dut": "nl",
    "swe": "sv",
    "dan": "da",
    "cze": "cs",
}
OTHERS = CODES | {"chi": "zh", "ara": "ar"}


def main() -> None:
    """Run over MEDLINE files."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("files", nargs="+", metavar="F.xml.gz", help="MEDLINE files")
    titles = []
    mixed = []
    others = []
    for path in parser.parse_args().files:
        with gzip.open(path) as file:
            for _, record in etree.iterparse(file, tag="MedlineCitation"):
                language = record.findtext("Article/Language")
                title = _text(record.find("Article/VernacularTitle"))
                abstract = _text(record.find("Article/Abstract"))
                if language in CODES and len(title) >= 20:
                    titles.append((CODES[language], title))
                    if len(abstract) >= 200:
                        mixed.append(("en", f"{title}\n\n{abstract}"))
                for other in record.findall("OtherAbstract"):
                    if other.get("Type") == "Publisher" and other.get("Language") in OTHERS:
                        others.append((OTHERS[other.get("Language")], _text(other)))
                record.clear()
    groups = {
        "titles": titles,
        "English abstracts below a foreign title": mixed,
        "abstracts in other languages": others,
    }
    for name, cases in groups.items():
        correct = Counter[str]()
        total = Counter[str]()
        start = time.perf_counter()
        for language, text in cases:
            total[language] += 1
            correct[language] += next(iter(language_fractions(text)), None) == language
        seconds = time.perf_counter() - start
        by_language = ", ".join(
            f"{language} {correct[language]}/{count}" for language, count in total.most_common()
        )
        accuracy = sum(correct.values()) / len(cases)
        print(
            f"{name}: {sum(correct.values())} of {len(cases)} correct ({accuracy:.2%});"
            f" {len(cases) / seconds:,.0f}/s; {by_language}"
        )


def _text(element: etree._Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())  # type: ignore[arg-type]


if __name__ == "__main__":
    cli.run(main)
