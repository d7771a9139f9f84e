"""Crawls of a local site.

Real Scrapy, real HTTP, in a process of its own (Twisted's reactor starts once).
"""

import gzip
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from data_prep import crawl
from data_prep.crawling.archive import Archive, truncate_to_complete_records
from data_prep.crawling.website import Site as SiteRecipe
from data_prep.readers.warc import WarcReader
from galen.errors import DataError, UsageError
from galen.recipe import load
from tests.conftest import ROOT, command, run
from tests.data_prep.server import Site

pytest.importorskip("scrapy")

PROSE = (
    "Asthma is a long-term condition of the airways that makes breathing hard, and it can be"
    " treated well. " * 3
)


def page(name, *links):
    anchors = "".join(f'<a href="{link}">x</a>' for link in links)
    content = f"<h1>{name}</h1><p>{PROSE}</p>"
    html = (
        f"<html lang='en'><title>{name}</title>"
        f"<body><nav>{anchors}</nav><main>{content}</main></body></html>"
    )
    return html.encode()


@pytest.fixture
def site():
    site = Site()
    outside = "http://localhost:1/elsewhere"
    site.files["/robots.txt"] = b"User-agent: *\nDisallow: /topic/private\nCrawl-delay: 0.01\n"
    site.files["/"] = page(
        "Home",
        "/topic/a",
        "topic/b#part",
        "/topic/private",
        "/other",
        outside,
        "mailto:x@y",
        "http://[bad",
        "/topic/old",
    )
    site.files["/topic/a"] = page("A", "/topic/c", "/topic/a?print=1", "/")
    site.files["/topic/b"] = page("B", "/topic/d", "/topic/gone")
    site.files["/topic/c"] = page("C", "/topic/d")
    site.files["/topic/d"] = page("D", "/topic/a")
    site.files["/topic/private"] = page("Private")
    site.files["/other"] = page("Other")
    site.types = dict.fromkeys(site.files, "text/html; charset=utf-8") | {
        "/robots.txt": "text/plain"
    }
    site.refuse["/topic/old"] = [(301, {"Location": "/topic/c"})] * 9
    return site


def write_recipe(tmp_path, base, **extra):
    fields = {
        "name": "local",
        "output": str(tmp_path / "raw"),
        "start": [f"{base}/"],
        "delay": 0,
        "content": "main",
        "license": "CC-BY-4.0",
    }
    fields |= {"allow": ["/$", "/topic/"], "deny": ["print="], "documents": "/topic/"} | extra
    path = tmp_path / "site.yaml"
    path.write_text("".join(f"{key}: {value!r}\n" for key, value in fields.items()))
    return path


def documents(tmp_path):
    reader = WarcReader(str(tmp_path / "raw"))
    found = [
        document
        for path in sorted((tmp_path / "raw").glob("*.warc.gz"))
        for document in reader.read_file(path.name)
    ]
    return {document.metadata["title"]: document for document in found}, len(found)


@pytest.mark.slow
def test_crawl(site, tmp_path):
    with site.running() as base:
        recipe = write_recipe(tmp_path, base)
        done = run("data_prep/crawl.py", recipe, "--contact", "me@example.org")
        assert "5 pages in" in done.stdout
        assert "1 forbidden by robots.txt" in done.stdout
        assert "0.01 s between requests" in done.stdout
        fetched = [path for path, _ in site.requests]
        assert "/topic/private" not in fetched
        assert "/other" not in fetched
        assert not any("print" in path for path in fetched)
        assert all(fetched.count(path) == 1 for path in ("/", "/topic/a", "/topic/b", "/topic/d"))
        assert all(headers["User-Agent"].startswith("galen/") for headers in site.headers)
        assert any("me@example.org" in headers["User-Agent"] for headers in site.headers)
        assert "/topic/gone: " in done.stderr, "what could not be had is told"
        found, count = documents(tmp_path)
        assert (sorted(found), count) == (["A", "B", "C", "D"], 4)
        assert found["A"].text == f"A\n\n{PROSE.strip()}"
        assert {
            "license": "CC-BY-4.0",
            "url": f"{base}/topic/a",
            "language": ["eng"],
        }.items() <= found["A"].metadata.items()
        site.requests.clear()
        again = run("data_prep/crawl.py", recipe)
        assert "5 pages in" in again.stdout
        assert {path for path, _ in site.requests} <= {
            "/robots.txt",
            "/topic/gone",
            "/topic/old",
            "/topic/c",
        }


@pytest.mark.slow
def test_killed_for_real_goes_on(site, tmp_path):
    site.hold["/topic/c"] = threading.Event()
    with site.running() as base:
        recipe = write_recipe(tmp_path, base)
        process = subprocess.Popen(
            command("data_prep/crawl.py", recipe),
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while not any(path == "/topic/c" for path, _ in site.requests):
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        site.hold["/topic/c"].set()
        [archive] = (tmp_path / "raw").glob("*.warc.gz")
        with archive.open("ab") as file:  # and what a kill inside a write leaves
            file.write(archive.read_bytes()[:100])
        before = {path for path, _ in site.requests}
        assert "/topic/a" in before
        site.requests.clear()
        run("data_prep/crawl.py", recipe)
        found, count = documents(tmp_path)
        assert (sorted(found), count) == (["A", "B", "C", "D"], 4)
        assert "/topic/a" not in {path for path, _ in site.requests}, (
            "what the archive holds is not fetched again"
        )


@pytest.mark.slow
def test_addresses_that_need_escaping_are_fetched_once(tmp_path):
    site = Site()
    names = ("/topic/ü", "/topic/sp ace", "/topic/[1]|'", "/topic/deny/x")
    site.files = {name: page(name) for name in names}
    site.files |= {
        "/robots.txt": b"",
        "/": page("Home", *names[:3], "/topic/%c3%bc", "/topic/%C3%BC", "/topic/%64eny/x"),
    }
    site.types = dict.fromkeys(site.files, "text/html; charset=utf-8")
    site.refuse["/topic/sp ace"] = [(302, {"Location": "/topic/sp%20ac%65"})]  # to itself
    with site.running() as base:
        recipe = write_recipe(tmp_path, base, deny=["/deny/"])
        for _ in range(2):
            run("data_prep/crawl.py", recipe)
            found, count = documents(tmp_path)
            assert (sorted(found), count) == (sorted(names[:3]), 3)
    fetched = [path for path, _ in site.requests if path.startswith("/topic")]
    assert sorted(fetched) == sorted([*names[:3], "/topic/sp ace"])


@pytest.mark.slow
def test_broken_answers_are_not_kept_and_each_is_told_with_its_reason(tmp_path):
    site = Site()
    compressed = gzip.compress(page("Half") * 50)
    site.files = {
        "/robots.txt": b"",
        "/topic/compressed": gzip.compress(page("Compressed")),
        "/topic/half": compressed[:-40],
        "/topic/bomb": gzip.compress(bytes(300_000)),
        "/topic/huge": bytes(300_000),
        "/topic/cut": page("Cut"),
        "/topic/slow": page("Slow"),
        "/topic/binary": bytes(range(256)) * 9,
    }
    site.files["/"] = page("Home", *list(site.files)[1:], "/topic/404", "/topic/500", "/topic/file")
    site.types = dict.fromkeys(site.files, "text/html; charset=utf-8")
    site.compressions = dict.fromkeys(("/topic/compressed", "/topic/half", "/topic/bomb"), "gzip")
    site.break_after["/topic/cut"] = [100] * 9
    site.refuse["/topic/500"] = [(500, {"Content-Encoding": "zstd"})] * 9
    site.refuse["/topic/file"] = [(302, {"Location": "file:///etc/topic/passwd"})]
    site.hold["/topic/slow"] = threading.Event()
    with site.running() as base:
        recipe = write_recipe(tmp_path, base, max_page_bytes=200_000, max_page_seconds=0.7)
        done = run("data_prep/crawl.py", recipe)
        site.hold["/topic/slow"].set()
    told = dict(
        line.partition(f"not fetched: {base}")[2].split(": ", 1)
        for line in done.stderr.splitlines()
        if "WARNING not fetched: " in line
    )
    assert told == {
        "/topic/half": "the page is not complete gzip data (it breaks off)",
        "/topic/bomb": "larger than 200,000 bytes (max_page_bytes)",
        "/topic/huge": "larger than 200,000 bytes (max_page_bytes)",
        "/topic/cut": "the connection was lost before the response was complete",
        "/topic/slow": "took longer than 0.7 s (max_page_seconds)",
        "/topic/404": "HTTP 404 (Not Found)",
        "/topic/500": "HTTP 500 (Internal Server Error)",
        "/topic/file": "HTTP 302 (Found) to file:///etc/topic/passwd, which is not followed",
    }
    assert "ERROR" not in done.stderr, "no lines of Scrapy's between ours"
    assert "8 failed" in done.stdout
    assert documents(tmp_path)[0].keys() == {"Compressed"}
    asked = [path for path, _ in site.requests]
    assert (asked.count("/topic/slow"), asked.count("/topic/500")) == (1, 5)


@pytest.mark.slow
def test_answers_without_a_type_and_compressed_sitemaps_are_read(tmp_path):
    site = Site()
    with site.running() as base:
        listed = (f"{base}/topic/untyped", f"{base}/topic/image")
        urls = "".join(f"<url><loc>{address}</loc></url>" for address in listed)
        site.files = {
            "/robots.txt": b"",
            "/map.xml": f"<i><sitemap><loc>{base}/more.xml.gz</loc></sitemap></i>".encode(),
            "/more.xml.gz": gzip.compress(f"<urlset>{urls}</urlset>".encode()),
            "/topic/untyped": page("Untyped", "/topic/next"),
            "/topic/next": page("Next"),
            "/topic/image": b"GIF89a",
        }
        site.types = {"/map.xml": "text/plain", "/more.xml.gz": "application/x-gzip"}
        site.types |= {"/topic/untyped": None, "/topic/next": None, "/topic/image": "image/gif"}
        recipe = write_recipe(tmp_path, base, start=[f"{base}/map.xml"])
        done = run("data_prep/crawl.py", recipe)
        assert documents(tmp_path)[0].keys() == {"Untyped", "Next"}
        assert "2 pages in" in done.stdout
        assert "0 failed" in done.stdout
        assert "1 neither page nor PDF" in done.stdout
        site.requests.clear()
        run("data_prep/crawl.py", recipe)
        assert not {"/topic/untyped", "/topic/next"} & {path for path, _ in site.requests}


def test_without_robots_nothing_is_fetched(site, tmp_path):
    site.refuse["/robots.txt"] = [(503, {})] * 9
    with (
        site.running() as base,
        pytest.raises(DataError, match=r"robots\.txt: HTTP 503; without it nothing is fetched"),
    ):
        crawl.main([str(write_recipe(tmp_path, base))])
    assert {path for path, _ in site.requests} == {"/robots.txt"}


def test_archive_files_rotate_and_are_mended(tmp_path):
    recipe = SiteRecipe(
        name="s", output=str(tmp_path), start=["http://s.org/"], allow=["/"], license="CC0-1.0"
    )
    archive = Archive(recipe, tmp_path, file_bytes=500)
    for n in range(4):
        archive.write(f"http://s.org/{n}", "200 OK", [("Content-Type", "text/html")], page(str(n)))
    archive.close()
    assert len(archive.paths) > 1
    assert [path.name for path in archive.paths] == [
        f"s-{n:05d}.warc.gz" for n in range(len(archive.paths))
    ]
    assert [address for address, _, _ in Archive(recipe, tmp_path).pages()] == [
        f"http://s.org/{n}" for n in range(4)
    ]
    path = archive.paths[-1]
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    truncate_to_complete_records(path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-1])
    assert [address for address, _, _ in Archive(recipe, tmp_path).pages()] == [
        "http://s.org/0",
        "http://s.org/1",
        "http://s.org/2",
    ]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"allow": ["("]}, "not a regular expression"),
        ({"start": ["ftp://x.org/"]}, "not an http address"),
        ({"name": "A B"}, "name"),
        ({"allow": ["/none/"]}, "matches none"),
        ({"content": "main["}, "is not a CSS selector"),
    ],
)
def test_usage(tmp_path, extra, message):
    with pytest.raises(UsageError, match=message):
        load(SiteRecipe, write_recipe(tmp_path, "http://s.org", **extra))


def test_shipped_recipes_are_valid():
    paths = sorted((ROOT / "examples/crawl").glob("*.yaml"))
    assert len(paths) >= 18
    for path in paths:
        site = load(SiteRecipe, path)
        assert site.name == path.stem
        assert site.terms.startswith("https://")
        assert site.delay >= 2


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("icrc", "https://www.icrc.org/en/publication/0001-first-aid"),
        ("who", "https://iris.who.int/bitstream/handle/10665/1/9.pdf"),
    ],
)
def test_shipped_recipes_reach_their_documents(name, address):
    site = load(SiteRecipe, ROOT / f"examples/crawl/{name}.yaml")
    assert re.search(site.documents, address)
    assert site.wants(address)
