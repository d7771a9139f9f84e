"""Sources behind addresses, read from servers on this machine."""

import http.server
import json
import logging
import os
import re
import subprocess
import sys
import threading
from functools import partial

import pytest
from fsspec.registry import _registry as file_systems

from data_prep import curate
from data_prep.curation.input_files import InputFile, describe, find_input_files
from data_prep.curation.source_reader import SourceFiles
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.records import RecordsReader
from data_prep.readers.text import TextReader
from galen.errors import DataError
from tests.conftest import ROOT
from tests.data_prep import hub
from tests.data_prep.fuzz_samples import PACKERS, lines, parquet, zipped
from tests.data_prep.material import read_records

RECORDS = [{"text": f"Text of {n}.", "id": str(n)} for n in range(3000)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves complete files, whatever range is asked for."""

    def log_message(self, *_):
        pass


class Ranges(Quiet):
    """Serves ranges."""

    def send_head(self):
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if requested is None:
            return super().send_head()
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
            data = file.read()
        first, last = int(requested[1]), min(int(requested[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])
        return None


@pytest.fixture(params=[Quiet, Ranges])
def server(request, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(request.param, directory=folder)
    )
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}", request.param
    httpd.shutdown()


@pytest.mark.parametrize("ending", ["", *PACKERS])
def test_lines(server, ending):
    folder, address, _ = server
    data = lines(*RECORDS)
    (folder / f"a.jsonl{ending}").write_bytes(PACKERS[ending](data) if ending else data)
    [(path, size)] = find_input_files(f"{address}/a.jsonl{ending}", RecordsReader.endings)
    assert size == (folder / f"a.jsonl{ending}").stat().st_size
    assert describe(path)["bytes"] == size
    actual = [document.id for document in RecordsReader(address).read_file(f"a.jsonl{ending}")]
    assert actual == [record["id"] for record in RECORDS]


def test_formats_that_need_seeking(server):
    folder, address, handler_class = server
    (folder / "a.parquet").write_bytes(parquet(RECORDS))
    (folder / "a.zip").write_bytes(zipped(b"Some text."))
    if handler_class is Ranges:
        assert len(list(RecordsReader(address).read_file("a.parquet"))) == len(RECORDS)
        assert len(list(TextReader(address, ReaderOptions()).read_file("a.zip"))) == 2


def test_a_corpus_from_an_address(server, tmp_path):
    folder, address, _ = server
    (folder / "a.jsonl").write_bytes(lines(*RECORDS[:5]) + b"{broken\n" + lines(*RECORDS[5:10]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'corpus'}\nsteps: []\nmax_error_rate: 0.5\nsplit: {{train: 1,"
        f" validation: 0, test: 0}}\nsources: [{{reader: records, path: '{address}/a.jsonl'}}]\n"
    )
    curate.main([str(recipe), "--workers", "1"])
    assert len(read_records(tmp_path / "corpus/train")) == 10
    assert f"{address}/a.jsonl" in (tmp_path / "corpus/quarantine.jsonl").read_text()


def curated(path, output, **more):
    """Curate one source of records; return the identifiers and the quarantine."""
    output.parent.mkdir(exist_ok=True)
    recipe = output.parent / f"{output.name}.yaml"
    recipe.write_text(
        f"output: {output}\nsteps: []\nmax_error_rate: 0.5\nsplit: {{train: 1, validation: 0, test:"
        f" 0}}\nsources: [{{reader: records, path: '{path}'}}]\n"
    )
    if more:
        command = [sys.executable, "data_prep/curate.py", str(recipe), "--workers", "1"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    else:
        curate.main([str(recipe), "--workers", "1"])
    bad = output / "quarantine.jsonl"
    actual = [json.loads(line) for line in bad.read_text().splitlines()] if bad.exists() else []
    return sorted(record["id"] for record in read_records(output / "train")), actual


def sample_files():
    """Files of each kind: plain lines with a broken one among them, packed ones, a table."""
    cut = [RECORDS[n : n + 100] for n in range(0, 600, 100)]
    files = {
        f"all/{n}.jsonl{ending}": PACKERS[ending](lines(*cut[n]))
        for n, ending in enumerate(PACKERS)
    }
    files["all/4.jsonl"] = lines(*cut[4][:50]) + b"{broken\n" + lines(*cut[4][50:])
    files["all/5.parquet"] = parquet(cut[5])
    return files


@pytest.fixture
def store(monkeypatch):
    """Environment with a server that speaks S3 and has the bucket "bucket"."""
    s3fs = pytest.importorskip("s3fs")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    environment = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **keys}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.makedirs("bucket", exist_ok=True)
    for name, data in sample_files().items():
        system.pipe(f"bucket/{name}", data)
    yield environment
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.multiprocess
def test_a_bucket(store, tmp_path):
    """All files of a folder in one corpus; a glob; a missing key, a missing bucket."""
    actual, [bad] = curated("s3://bucket/all", tmp_path / "corpus", **store)
    assert actual == sorted(record["id"] for record in RECORDS[:600])
    assert (bad["file"], bad["position"].partition(",")[0]) == (
        "s3://bucket/all/4.jsonl",
        "line 51",
    )
    inputs = json.loads((tmp_path / "corpus/manifest.json").read_text())["inputs"]
    assert all(entry["version"] for entry in inputs)
    assert [
        path for path, _ in find_input_files("s3://bucket/al*/*.jsonl", RecordsReader.endings)
    ] == ["s3://bucket/all/4.jsonl"]
    for missing in ("s3://bucket/all/none.jsonl", "s3://nobucket/x.jsonl"):
        with pytest.raises(DataError, match=re.escape(missing)):
            find_input_files(missing, RecordsReader.endings)


def test_a_failing_store_is_not_a_bad_file(store, tmp_path):
    """Else the next start would take the file for a damaged one that it has read."""
    import s3fs

    size = find_input_files("s3://bucket/all/4.jsonl", RecordsReader.endings)[0][1]
    source = SourceFiles(
        [[InputFile("records", "s3://bucket/all/4.jsonl", size, RecordsReader.Options())]],
        str(tmp_path / "log"),
        str(tmp_path / "quarantine"),
    )
    s3fs.S3FileSystem(anon=False).delete("bucket/all", recursive=True)
    with pytest.raises(OSError, match=r"all/4\.jsonl"):
        list(source.run())


@pytest.mark.multiprocess
def test_a_data_set_of_the_hub(tmp_path):
    """As a user names it, in a process of its own.

    The hub's address is looked at when its library is imported.
    """
    with hub.running(sample_files()) as address:
        environment = {
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }
        actual, [bad] = curated("hf://datasets/a/b/all", tmp_path / "corpus", **environment)
    assert actual == sorted(record["id"] for record in RECORDS[:600])
    assert bad["file"].endswith("a/b/all/4.jsonl") or "a/b@main/all/4.jsonl" in bad["file"]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for protocol in ("s3", "s3a"):
        monkeypatch.delitem(file_systems, protocol, raising=False)
    with pytest.raises(
        DataError, match=r"^cannot read s3://b/a.jsonl: .*pip install -e '\.\[s3\]'"
    ):
        find_input_files("s3://b/a.jsonl", RecordsReader.endings)
    with pytest.raises(
        DataError, match=r"^cannot read nosuch://b/a.jsonl: Protocol not known: nosuch"
    ):
        find_input_files("nosuch://b/a.jsonl", RecordsReader.endings)
