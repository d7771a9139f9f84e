"""Small raw dumps in the layouts in which the sources of the published corpora are published.

They are as download.py and crawl.py leave them.
"""

import io
import json
import random
import tarfile

import pyarrow
import pyarrow.parquet

from data_prep.steps.filters.medical import KEYWORDS, read_terms
from tests.data_prep.material import pdf_bytes, record_xml, write_lines, write_medline
from tests.data_prep.test_web import write_warc

# what stands between medical terms in a sentence
MEDICAL = {
    "en": (
        "in patients with; was found after; is treated by; before the; the doctor saw; because of;"
        " without any; while the"
    ),
    "fr": (
        "chez le malade; est apparu après; se traite par; avant la; le médecin voit; à cause de;"
        " sans aucun; tandis que la"
    ),
    "es": (
        "en el enfermo; apareció después de; se trata con; antes de la; el médico vio; por causa"
        " de; sin ningún; pero la"
    ),
    "ru": (
        "у больного был; найдено после; лечат с помощью; до того как; врач увидел; потому что; без"
        " всякого; но и"
    ),
    "zh": "的患者没有; 以后发现了; 可以用; 之前的; 医生看到; 是因为; 并且没有; 但是对于",
    "ja": (
        "の患者では; の後に見られた; で治療される; の前には; そして医師は; のために; がなく、;"
        " しかしながら"
    ),
    "it": (
        "nel malato con; appare dopo; si cura con; prima della; il medico vede; a causa di; senza"
        " alcun; mentre la"
    ),
}
EVERYDAY = {
    "en": (
        "the train left for; my sister bought; near the river; nobody waved at; on Sunday we saw; a"
        " song about; without the"
    ),
    "fr": (
        "le train part pour; ma sœur achète; près de la; personne ne saluait; dimanche on a vu; une"
        " chanson sur; sans le"
    ),
}
THINGS = {
    "en": (
        "apples station castle garden window bicycle harbour violin bakery postcard lantern meadow"
        " orchestra carpet teapot ladder mirror"
    ),
    "fr": (
        "pommes gare château jardin fenêtre vélo port violon boulangerie carte lanterne prairie"
        " orchestre tapis théière échelle miroir"
    ),
}


def prose(language, seed, sentences=10, everyday=False):
    """A text of its own for each seed."""
    chance = random.Random(f"{language}{seed}")
    things = THINGS[language].split() if everyday else read_terms(KEYWORDS / f"{language}.txt")
    phrases = (EVERYDAY if everyday else MEDICAL)[language].split("; ")
    space, end = ("", "。") if language in ("zh", "ja") else (" ", ". ")
    return "".join(
        space.join(
            part for _ in range(4) for part in (chance.choice(phrases), chance.choice(things))
        ).capitalize()
        + end
        for _ in range(sentences)
    ).strip()


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def jats(number, text, license, pmid=""):
    rights = f'<permissions><license xlink:href="{license}"/></permissions>' if license else ""
    return (
        '<article xmlns:xlink="http://www.w3.org/1999/xlink" article-type="research-article">'
        "<front><article-meta>"
        f'<article-id pub-id-type="pmcid">PMC{number}</article-id>'
        f'<article-id pub-id-type="pmid">{pmid}</article-id>'
        f"<title-group><article-title>Article {number}</article-title></title-group>"
        f"<pub-date><year>2020</year></pub-date>{rights}</article-meta></front>"
        f"<body><sec><title>Results</title><p>{text}</p></sec></body></article>"
    )


def write_package(path, articles):
    """A package as download.py pmc makes it: name in the archive -> XML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, xml in articles.items():
            info = tarfile.TarInfo(name)
            info.size = len(xml.encode())
            archive.addfile(info, io.BytesIO(xml.encode()))


def write_pmc(folder, contaminated):
    by, by_nc = (
        "http://creativecommons.org/licenses/by/4.0/",
        "https://creativecommons.org/licenses/by-nc/4.0/",
    )
    articles = {f"PMC{n}.1.xml": jats(n, prose("en", n, 20), by, pmid=n) for n in range(1, 31)}
    articles["PMC31.1.xml"] = jats(31, f"{prose('en', 31, 20)} {contaminated}", by)
    articles["PMC32.1.xml"] = jats(32, prose("en", 32, 20), by_nc)  # its metadata said otherwise
    articles["PMC33.1.xml"] = jats(33, prose("en", 33, 20), "")
    articles["PMC34.1.xml"] = jats(34, prose("en", 1, 20) + " Added later.", by)
    write_package(folder / "comm/PMC000000xxx.tar.gz", articles)
    write_package(
        folder / "noncomm/PMC000001xxx.tar.gz",
        {"PMC1001.1.xml": jats(1001, prose("en", 1001, 20), by_nc)},
    )


def s2orc(number, text, newer):
    """A record of the datasets API: `content` in s2orc, `body` in s2orc_v2."""
    annotations = {"paragraph": json.dumps([{"start": 0, "end": len(text)}])}
    content = {"text": text, "annotations": annotations}
    ids = {"PubMed": str(5000 + number), "DOI": f"10.1/{number}"}
    if newer:
        access = {"externalids": ids, "license": "CCBY"}
        return {
            "corpusid": number,
            "title": f"Paper {number}",
            "openaccessinfo": access,
            "body": content,
            "bibliography": None,
        }
    return {
        "corpusid": number,
        "externalids": ids,
        "content": {"source": {"oainfo": {"license": "CCBY"}}, **content},
    }


def write_gap(raw):
    """The sources of GAP-Replay, beside PMC."""
    keys = ("id", "source", "title", "clean_text", "raw_text", "url", "overview")
    guidelines = [
        (f"{n:04x}", "who", f"Guideline {n}", prose("en", f"g{n}"), "", f"https://g/{n}", None)
        for n in range(20)
    ]
    write_lines(
        raw / "guidelines/open_guidelines.jsonl",
        [dict(zip(keys, values, strict=True)) for values in guidelines],
    )
    write_lines(
        raw / "s2orc/20240101_000000_00000_a1b2c_0.gz",
        [s2orc(n, prose("en", f"s{n}", 20), newer=False) for n in range(10)],
    )
    write_lines(
        raw / "s2orc/20240101_000000_00001_a1b2c_1.gz",
        [s2orc(n, prose("en", f"s{n}", 20), newer=True) for n in range(10, 20)],
    )
    # their full text is in PMC
    cited = [record_xml(n, f"Article {n}.", prose("en", f"a{n}", 5)) for n in range(1, 11)]
    # and theirs in S2ORC
    cited += [record_xml(5000 + n, f"Paper {n}.", prose("en", f"p{n}", 5)) for n in range(5)]
    alone = [record_xml(9000 + n, f"Abstract {n}.", prose("en", f"m{n}", 5)) for n in range(30)]
    write_medline(raw / "medline/baseline/pubmed26n0001.xml.gz", cited + alone)
    updates = [
        record_xml(9000, "Abstract 0, corrected.", prose("en", "m0", 6)),
        record_xml(9100, "Un.", prose("fr", 0, 5), (), "fre"),
    ]
    write_medline(
        raw / "medline/updatefiles/pubmed26n1335.xml.gz",
        [*updates, record_xml(9101, "Short.", "Too short to be of use.")],
    )
    write_lines(
        raw / "replay/redpajama/wikipedia/wiki.jsonl",
        [{"text": prose("en", f"r{n}", 9, everyday=True), "meta": {"url": "u"}} for n in range(9)],
    )
    pages = [
        {
            "content": prose("en", f"w{n}", 9, everyday=True),
            "url": f"http://w/{n}",
            "dump": "CC-MAIN-2013-20",
            "image_urls": [],
        }
        for n in range(9)
    ]
    write_parquet(
        raw / "replay/refinedweb/data/train-00000-of-05534-b8fc5348cbe605a5.parquet", pages
    )
    code = [
        f"def f_{n}(x_{n}):\n"
        + "".join(f"    if x_{n} == {i * n}:\n        return g_{i}(x_{n})\n" for i in range(30))
        for n in range(1, 9)
    ]
    rows = [
        {"id": str(n), "max_stars_repo_path": f"{n}.py", "content": text}
        for n, text in enumerate(code)
    ]
    write_parquet(raw / "replay/starcoder/python/train-00000-of-00059.parquet", rows)


def write_mmedc(raw):
    """The sources of MMedC."""
    for language in ("en", "fr", "es", "ru", "zh", "ja", "it"):
        texts = [prose(language, f"c{n}") for n in range(60 if language != "it" else 5)]
        texts += (
            [prose(language, f"e{n}", 10, everyday=True) for n in range(10)]
            if language in EVERYDAY
            else []
        )
        rows = [
            {"text": text, "timestamp": "2020-11-26", "url": f"http://{n}", "source": "mC4"}
            for n, text in enumerate(texts)
        ]
        write_parquet(raw / f"culturax/{language}/{language}_part_00000.parquet", rows)
    (raw / "culturax/README.md").write_text("# CulturaX\n")
    (raw / "textbooks").mkdir()
    (raw / "textbooks/book.pdf").write_bytes(
        pdf_bytes(
            [f"{'Index ' * 9 if n in (0, 109) else prose('en', f'b{n}', 12)}" for n in range(110)]
        )
    )
    notice = "Esta información no sustituye la consulta con un médico de cabecera."
    pages = [
        (f"https://m/{n}", f"<p>{prose('es', f'web{n}', 8)}</p><p>{notice}</p>") for n in range(20)
    ]
    head = '<html lang="es"><head><title>Caso</title></head><body><nav>Inicio</nav><main>'
    (raw / "websites").mkdir()
    answers = [
        (
            url,
            "200 OK",
            [("Content-Type", "text/html; charset=utf-8")],
            f"{head}{text}</main></body></html>".encode(),
        )
        for url, text in pages
    ]
    write_warc(
        raw / "websites/medlineplus_es-00000.warc.gz",
        answers,
        {"license": "public-domain", "content": "main"},
    )
    for language in ("zh", "ja"):
        write_lines(
            raw / f"small_sets/{language}.jsonl",
            [{"id": n, "text": prose(language, f"s{n}", 20)} for n in range(10)],
        )
