"""Texts in many languages for benchmarks/medical_filter.py, from Git repositories.

One document a line.

    # clinical cases: en, es, fr, it
    git clone --bare https://github.com/hltfbk/E3C-Corpus clones/E3C-Corpus
    # texts on COVID-19: ar, es, fr, pt, ru, zh
    git clone --bare https://github.com/tico-19/tico-19.github.io clones/tico-19
    # Japanese medical licensing examinations
    git clone --bare https://github.com/jungokasai/IgakuQA clones/IgakuQA
    # Russian medical prose
    git clone --bare https://github.com/pavel-blinov/RuMedBench clones/RuMedBench
    # news, Wikipedia; and so on
    git clone --bare https://github.com/UniversalDependencies/UD_Arabic-PUD clones/UD_Arabic-PUD
    python benchmarks/medical_texts.py --clones clones --output texts

writes texts/medical_<language>_<corpus>.txt and texts/everyday_<language>.txt. The repositories'
licenses allow research (E3C: Creative Commons, by document; TICO-19: CC0; treebanks: CC BY-SA);
Galen contains nothing of them.
"""

import io
import json
import re
import subprocess
import xml.etree.ElementTree as ET  # of files that the user has chosen
import zipfile
from collections.abc import Iterator
from pathlib import Path

from galen import cli

E3C = {"English": "en", "Spanish": "es", "French": "fr", "Italian": "it"}
TICO = {"ar": "ar", "es-LA": "es", "fr": "fr", "pt-BR": "pt", "ru": "ru", "zh": "zh"}
TREEBANKS = {
    "ar": ["UD_Arabic-PUD"],
    "de": ["UD_German-GSD", "UD_German-PUD"],
    "es": ["UD_Spanish-PUD"],
    "fr": ["UD_French-GSD", "UD_French-PUD"],
    "it": ["UD_Italian-ISDT", "UD_Italian-PUD"],
    "ja": ["UD_Japanese-GSD"],
    "pt": ["UD_Portuguese-GSD"],
    "ru": ["UD_Russian-GSD", "UD_Russian-Taiga"],
    "zh": ["UD_Chinese-GSDSimp"],
}
_SENTENCES = 10
"""Sentences of a document, where a corpus has only sentences."""


def files(clone: Path, pattern: str) -> Iterator[bytes]:
    """Yield the contents of files with a matching path in a clone's newest commit.

    Files that the clone lacks are skipped.
    """
    git = ["git", "--git-dir", str(clone)]
    names = subprocess.run(
        [*git, "ls-tree", "-r", "--name-only", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in names:
        if re.fullmatch(pattern, name):
            shown = subprocess.run([*git, "show", f"HEAD:{name}"], capture_output=True)
            if shown.returncode == 0:
                yield shown.stdout


def join_sentences(sentences: list[str], language: str) -> list[str]:
    """Return documents of neighboring sentences."""
    space = "" if language in ("zh", "ja") else " "
    return [
        space.join(sentences[n : n + _SENTENCES])
        for n in range(0, len(sentences) - _SENTENCES // 2 + 1, _SENTENCES)
    ]


def e3c(clone: Path, language: str) -> list[str]:
    """Return the clinical cases of E3C's first two layers."""
    return [
        str(json.loads(data)["text"])
        for data in files(clone, rf"data_collection/{language}/layer[12]/.*\.json")
    ]


def tico(clone: Path, language: str) -> list[str]:
    """Return the abstracts and Wikipedia articles of TICO-19, a few sentences per text."""
    (archive_bytes,) = files(clone, rf"data/TM/all\.en-{language}\.tmx\.zip")
    with zipfile.ZipFile(io.BytesIO(archive_bytes)) as archive:
        (name,) = (
            name
            for name in archive.namelist()
            if name.endswith(".tmx") and not name.startswith("__MACOSX")
        )
        root = ET.fromstring(archive.read(name))
    articles: dict[str, list[str]] = {}
    for unit in root.iter("tu"):
        article = (unit.get("tuid") or "").partition(":")[0]
        if article.startswith(("PubMed", "Wikipedia_")):
            articles.setdefault(article, []).append("".join(list(unit.iter("seg"))[1].itertext()))
    texts = []
    for sentences in articles.values():
        texts += join_sentences(sentences, language)
    return texts


def igaku(clone: Path) -> list[str]:
    """Return the questions of IgakuQA with their choices, five per text."""
    texts = []
    for data in files(clone, r"data/\d+/\d+-\w\.jsonl"):
        questions = [json.loads(line) for line in data.decode().splitlines()]
        rendered = [
            " ".join([question["problem_text"], *question["choices"]]) for question in questions
        ]
        texts += [" ".join(rendered[n : n + 5]) for n in range(0, len(rendered), 5)]
    return texts


def danet(clone: Path) -> list[str]:
    """Return the contexts of RuMedDaNet, three per text."""
    unique: dict[str, None] = {}
    for data in files(clone, r"data/RuMedDaNet/(train|dev|test)_v1\.jsonl"):
        unique |= dict.fromkeys(json.loads(line)["context"] for line in data.decode().splitlines())
    contexts = list(unique)
    return [" ".join(contexts[n : n + 3]) for n in range(0, len(contexts), 3)]


def treebank(clone: Path, language: str) -> list[str]:
    """Return the sentences of a treebank, a few per text."""
    data = b"\n".join(files(clone, r"[^/]*\.conllu")).decode()
    return join_sentences(re.findall(r"^# text = (.*)$", data, re.MULTILINE), language)


def main() -> None:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--clones", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    clones: Path = arguments.clones

    def write(name: str, texts: list[str]) -> None:
        lines = [" ".join(text.split()) + "\n" for text in texts if text.strip()]
        (arguments.output / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
        print(
            f"{name}: {len(lines):,} documents of {sum(map(len, lines)) // max(1, len(lines)):,}"
            " characters"
        )

    for name, language in E3C.items():
        write(f"medical_{language}_e3c", e3c(clones / "E3C-Corpus", name))
    for name, language in TICO.items():
        write(f"medical_{language}_tico", tico(clones / "tico-19", name))
    write("medical_ja_igaku", igaku(clones / "IgakuQA"))
    write("medical_ru_danet", danet(clones / "RuMedBench"))
    for language, banks in TREEBANKS.items():
        texts = []
        for bank in banks:
            texts += treebank(clones / bank, language)
        write(f"everyday_{language}", texts)


if __name__ == "__main__":
    cli.run(main)
