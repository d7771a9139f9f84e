"""Downloads from servers that want a key, another place in the file system, or all of the disk."""

import contextlib
import gzip
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_prep import download
from data_prep.fetching import transfer, urls
from data_prep.fetching.item import Item, name_problem
from data_prep.fetching.transfer import Transfer
from data_prep.fetching.urls import public
from galen.errors import DataError
from tests.conftest import ROOT
from tests.data_prep.server import Site

SENTINEL = "sentinel-5d2c1f"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)


def run(base, folder, source, *options):
    return download.main(
        [
            source,
            "--output",
            str(folder),
            "--base-url",
            base,
            "--requests-per-second",
            "1000",
            *options,
        ]
    )


def hub(site, *names, **files):
    """Fill in a dataset of files with these names.

    Their content is "text", and their size is the only checksum.
    """
    siblings = [{"rfilename": name, "size": 4} for name in names]
    site.files["/api/datasets/some/name/revision/main?blobs=true"] = json.dumps(
        {"sha": "c0ffee", "siblings": siblings}
    ).encode()
    site.files |= {f"/datasets/some/name/resolve/c0ffee/{name}": b"text" for name in names}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("source", "variable"), [("hf:some/name", "HF_TOKEN"), ("s2orc", "S2_API_KEY")]
)
def test_a_key_never_follows_a_redirect_to_another_port(
    tmp_path, monkeypatch, status, source, variable
):
    monkeypatch.setenv(variable, SENTINEL)
    site, stranger = Site(), Site()
    with site.running() as base, stranger.running() as elsewhere:
        hub(stranger, "a.json")
        listing = {"files": [f"{elsewhere}/part0?sign=ature"]}
        stranger.files["/datasets/v1/release/latest/dataset/s2orc"] = json.dumps(listing).encode()
        stranger.files["/part0?sign=ature"] = b"text"
        for path in stranger.files:
            site.refuse[path] = [(status, {"Location": f"{elsewhere}{path}"})]
        run(base, tmp_path, source)
    assert SENTINEL in json.dumps(site.headers[0])
    assert stranger.headers
    assert SENTINEL not in json.dumps(stranger.headers)


def test_a_key_follows_a_redirect_on_its_own_server(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SENTINEL)
    site = Site()
    hub(site, "a.json")
    path = "/datasets/some/name/resolve/c0ffee/a.json"
    site.refuse[path] = [(302, {"Location": "/moved/a.json"})]
    site.files["/moved/a.json"] = b"text"
    with site.running() as base:
        run(base, tmp_path, "hf:some/name")
    assert [headers["Authorization"] for headers in site.headers] == [f"Bearer {SENTINEL}"] * 3


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.org/x", "https://a.org:443/y", True),
        ("https://a.org/x", "http://a.org/x", False),
        ("https://a.org/x", "https://a.org:8443/x", False),
        ("https://a.org/x", "https://b.a.org/x", False),
        ("https://a.org/x", "https://a.org@b.org/x", False),
    ],
)
def test_origins(one, other, same):
    assert (urls.origin(one) == urls.origin(other)) is same


def test_redirects_to_files_and_without_end_are_refused(tmp_path):
    site = Site()
    hub(site, "a.json", "b.json", "c.json")
    folder = "/datasets/some/name/resolve/c0ffee/"
    site.refuse[f"{folder}a.json"] = [(302, {"Location": "file:///etc/passwd"})]
    site.refuse[f"{folder}b.json"] = [(302, {"Location": "b.json"})] * 99
    with (
        site.running() as base,
        pytest.raises(DataError, match="2 files could not be downloaded") as caught,
    ):
        run(base, tmp_path, "hf:some/name")
    assert "redirects to file:///etc/passwd, which is not an http address" in str(caught.value)
    assert "b.json: too many redirects" in str(caught.value)
    assert (tmp_path / "c.json").read_bytes() == b"text"


BAD = {
    "../up.json": "outside its folder",
    "/abs.json": "outside its folder",
    "a/../../up.json": "outside its folder",
    "nul\0.json": "not a file name",
    "line\nbreak.json": "not a file name",
    "half\ud800.json": "not a file name",
    "": "not a file name",
    ".": "not a file name",
    "folder/": "not a file name",
    "a//b.json": "not a file name",
    "x" * 300: "too long",
    "ü" * 125: "too long",
    "y/" * 1500 + "z": "too long",
    "downloads.jsonl": "reserved for this command",
    ".good.json.partial": "reserved for this command",
    ".good.json.partial.version": "reserved for this command",
    "good.json/below": "cannot create its folder",
}


def test_a_name_of_a_file_and_of_a_folder_is_one_items_error(tmp_path, caplog):
    site, output = Site(), tmp_path / "raw"
    hub(site, "sub", "sub/good.json", "zz.json")
    [held] = [path for path in site.files if path.endswith("/sub")]
    site.hold[held] = threading.Event()

    def let_go():  # when the file below it has come
        while not (output / "sub/good.json").exists():
            time.sleep(0.01)
        site.hold[held].set()

    threading.Thread(target=let_go, daemon=True).start()
    with site.running() as base, pytest.raises(DataError, match="1 file could not be downloaded"):
        run(base, output, "hf:some/name", "--connections", "2")
    assert "failed: sub: sub: a folder of that name exists" in caplog.text
    assert {path.name for path in output.rglob("*") if path.is_file()} == {
        "downloads.jsonl",
        "good.json",
        "zz.json",
    }


def test_a_name_that_cannot_be_a_file_is_one_items_error(tmp_path, capsys, caplog):
    site, output = Site(), tmp_path / "raw"
    good = ["good.json", "é\u3000 ok.json", "deep/er/last.json", "zz.json"]
    hub(site, *BAD, *good, "zz.json")
    with (
        site.running() as base,
        pytest.raises(DataError, match=f"{len(BAD) + 1} files could not be downloaded"),
    ):
        run(base, output, "hf:some/name", "--connections", "1")
    for why in {*BAD.values(), "zz.json is the name of two files"}:
        assert why in caplog.text
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"raw/downloads.jsonl", *(f"raw/{name}" for name in good)}
    assert "4 files downloaded" in capsys.readouterr().out
    with site.running() as base:
        run(base, output, "hf:some/name", "--dry-run")


@pytest.mark.parametrize(
    "name", ["a.json", "a b/ü.parquet", ".gitattributes", "..a", "x" * 200, "-rf", "CON"]
)
def test_names_of_files(name):
    assert name_problem(name) is None


@contextlib.contextmanager
def endless(headers, max_bytes=2**31):
    """A server that sends zeros until the other end leaves.

    Yields its address and a list of how much it could send at each request.
    """
    sent = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            sent.append(0)
            request = len(sent) - 1
            with contextlib.suppress(OSError):
                while sent[request] < max_bytes:
                    sent[request] += self.wfile.write(bytes(2**16))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/a.json", sent
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Length": str(2**40)}, {"Content-Encoding": "gzip"}]
)
@pytest.mark.parametrize("size", [1000, None])
def test_endless_data_is_aborted(tmp_path, headers, size):
    message = "more than the published 1,000 bytes" if size else "more than 1,000,000 bytes"
    with (
        endless(headers) as (url, sent),
        pytest.raises(DataError, match=f"{message}.*twice; nothing was kept"),
    ):
        Transfer(1000, max_file_bytes=10**6).file(Item("a.json", url, size=size), tmp_path)
    assert list(tmp_path.iterdir()) == []
    time.sleep(0.2)
    assert max(sent) < 2**27, "what the system's buffers take, and no more"


def test_a_small_resource_has_a_limit_too():
    with endless({}) as (url, _), pytest.raises(DataError, match="more than 1,000,000 bytes"):
        Transfer(1000).get(url, max_bytes=10**6)
    site = Site()
    site.files["/bomb"] = gzip.compress(bytes(10**8))
    site.version = '"v1"\r\nContent-Encoding: gzip'
    with (
        site.running() as base,
        pytest.raises(DataError, match="more than 1,000,000 bytes when decompressed"),
    ):
        Transfer(1000).get(f"{base}/bomb", max_bytes=10**6)


def test_a_content_length_that_lies(tmp_path):
    """One too small is not published: the checksum tells.

    One too large is a connection that breaks off.
    """
    data = b"text" * 1000
    item = {"size": len(data), "checksum": ("sha256", hashlib.sha256(data).hexdigest())}
    site = Site()
    site.files["/short"], site.files["/long"] = data[:100], data
    site.break_after["/long"] = [50, 60]
    with site.running() as base:
        with pytest.raises(DataError, match="it has 100 bytes, the published size is 4,000, twice"):
            Transfer(1000).file(Item("short", f"{base}/short", **item), tmp_path)
        Transfer(1000).file(Item("long", f"{base}/long", **item), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"long": data}


def test_shown_addresses_hold_no_key(monkeypatch):
    monkeypatch.setenv("S2_API_KEY", SENTINEL)
    assert (
        public(f"https://me:secret@a.org:8/x@y/{SENTINEL}?sign=ature")
        == "https://a.org:8/x@y/[key]"
    )


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("source", "variable"), [("hf:some/name", "HF_TOKEN"), ("s2orc", "S2_API_KEY")]
)
def test_a_key_is_written_nowhere(tmp_path, source, variable):
    """A key is not in the command's output, files or command line.

    Although the server repeats it in all its answers.
    """
    site = Site()
    hub(site, "a.json", "b.json")
    site.refuse["/datasets/some/name/resolve/c0ffee/b.json"] = [(403, {"X-Echo": SENTINEL})] * 9
    with site.running() as base:
        listing = {"files": [f"{base}/part0?key={SENTINEL}", f"{base}/gone?key={SENTINEL}"]}
        site.files["/datasets/v1/release/latest/dataset/s2orc"] = json.dumps(listing).encode()
        site.files[f"/part0?key={SENTINEL}"] = b"text"
        hold = (
            "/datasets/some/name/resolve/c0ffee/a.json"
            if source.startswith("hf")
            else f"/part0?key={SENTINEL}"
        )
        site.hold[hold] = threading.Event()
        command = [
            sys.executable,
            "data_prep/download.py",
            source,
            "--output",
            str(tmp_path / "raw"),
            "--base-url",
            base,
        ]
        environment = {**os.environ, variable: SENTINEL}
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while hold not in [path for path, _ in site.requests] and process.poll() is None:
            time.sleep(0.02)
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        site.hold[hold].set()
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "1 file could not be downloaded" in said
    written = [
        path.read_text(errors="replace") + str(path)
        for path in tmp_path.rglob("*")
        if path.is_file()
    ]
    assert len(written) >= 2
    assert SENTINEL not in "".join([shown, said, *written])
