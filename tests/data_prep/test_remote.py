"""Sources behind addresses, read from servers on this machine."""

import http.server
import re
import threading
from functools import partial

import pytest

from data_prep import curate
from data_prep.raw_files import describe, find_raw_files
from data_prep.readers.options import ReaderOptions
from data_prep.readers.records import RecordsReader
from data_prep.readers.text import TextReader
from tests.data_prep.fuzz_samples import PACKERS, lines, parquet, zipped
from tests.data_prep.material import read_records

RECORDS = [{"text": f"Text of {n}.", "id": str(n)} for n in range(3000)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files whole, whatever range is asked for."""

    def log_message(self, *_):
        pass


class Ranges(Quiet):
    """Serves ranges."""

    def send_head(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            return super().send_head()
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
            data = file.read()
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
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
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(request.param, directory=folder))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}", request.param
    httpd.shutdown()


@pytest.mark.parametrize("ending", ["", *PACKERS])
def test_lines(server, ending):
    folder, address, _ = server
    data = lines(*RECORDS)
    (folder / f"a.jsonl{ending}").write_bytes(PACKERS[ending](data) if ending else data)
    [(path, size)] = find_raw_files(f"{address}/a.jsonl{ending}", RecordsReader.endings)
    assert size == (folder / f"a.jsonl{ending}").stat().st_size
    assert describe(path)["bytes"] == size
    found = [document.id for document in RecordsReader(address).read_file(f"a.jsonl{ending}")]
    assert found == [record["id"] for record in RECORDS]


def test_files_in_which_one_must_seek(server):
    folder, address, kind = server
    (folder / "a.parquet").write_bytes(parquet(RECORDS))
    (folder / "a.zip").write_bytes(zipped(b"Some text."))
    if kind is Ranges:
        assert len(list(RecordsReader(address).read_file("a.parquet"))) == len(RECORDS)
        assert len(list(TextReader(address, ReaderOptions()).read_file("a.zip"))) == 2


def test_a_corpus_of_an_address(server, tmp_path):
    folder, address, _ = server
    (folder / "a.jsonl").write_bytes(lines(*RECORDS[:5]) + b"{broken\n" + lines(*RECORDS[5:10]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'corpus'}\nsteps: []\nmax_bad_share: 0.5\nsplit: {{train: 1, validation: 0, test: 0}}\n"
        f"sources: [{{reader: records, path: '{address}/a.jsonl'}}]\n"
    )
    curate.main([str(recipe), "--workers", "1"])
    assert len(read_records(tmp_path / "corpus/train")) == 10
    assert f"{address}/a.jsonl" in (tmp_path / "corpus/quarantine.jsonl").read_text()
