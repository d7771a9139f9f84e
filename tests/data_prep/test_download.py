"""Downloads from a local server that breaks off, throttles and serves what it should not."""

import gzip
import hashlib
import json
import random
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_prep import download
from data_prep.fetching import transfer
from data_prep.fetching.pmc import license_group
from data_prep.readers.jats import JatsReader
from galen.errors import DataError, UsageError
from tests.data_prep.readers.test_jats import FIXTURE
from tests.data_prep.server import Site

NAMES = [f"pubmed26n{n:04d}.xml.gz" for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)


@pytest.fixture
def site():
    """MEDLINE's folder with three files of about 300 kB, their MD5 beside them."""
    site, draw = Site(), random.Random(3)
    for name in NAMES:
        data = gzip.compress(draw.randbytes(300_000))
        site.files[f"/pubmed/baseline/{name}"] = data
        site.files[f"/pubmed/baseline/{name}.md5"] = (
            f"MD5({name})= {hashlib.md5(data).hexdigest()}\n".encode()
        )
    site.files["/pubmed/baseline/"] = "".join(
        f'<a href="{name}">{name}</a><a href="{name}.md5">' for name in NAMES
    ).encode()
    return site


def run(base, folder, *options, source="medline-baseline"):
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


def entries(folder):
    return [json.loads(line) for line in (folder / "downloads.jsonl").read_text().splitlines()]


def bodies(site):
    return [
        (path.rsplit("/", 1)[-1], wanted) for path, wanted in site.requests if path.endswith(".gz")
    ]


def test_files_come_once_and_are_listed(site, tmp_path, capsys):
    with site.running() as base:
        assert run(base, tmp_path / "raw") == 0
        for name in NAMES:
            assert (tmp_path / "raw" / name).read_bytes() == site.files[f"/pubmed/baseline/{name}"]
        found = sorted(entries(tmp_path / "raw"), key=lambda entry: entry["name"])
        assert [entry["name"] for entry in found] == NAMES
        assert all(
            entry["checked"] == "md5"
            and entry["time"].endswith("Z")
            and entry["url"].startswith(base)
            for entry in found
        )
        assert "3 files downloaded, 0 failed" in capsys.readouterr().out
        before = len(bodies(site))
        run(base, tmp_path / "raw")
        assert len(bodies(site)) == before, "what is there is not fetched again"
        changed = gzip.compress(b"corrected")
        site.files[f"/pubmed/baseline/{NAMES[1]}"] = changed
        site.files[f"/pubmed/baseline/{NAMES[1]}.md5"] = hashlib.md5(changed).hexdigest().encode()
        run(base, tmp_path / "raw")
        assert (tmp_path / "raw" / NAMES[1]).read_bytes() == changed
        assert len(bodies(site)) == before + 1
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {*NAMES, "downloads.jsonl"}


def test_broken_connections_are_resumed(site, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(transfer, "_LOGGED_WAIT", 0)
    path = f"/pubmed/baseline/{NAMES[0]}"
    site.break_after[path] = [100_000, 0, 50_000]
    with site.running() as base:
        run(base, tmp_path, "--include", NAMES[0])
    assert (tmp_path / NAMES[0]).read_bytes() == site.files[path]
    assert [wanted for _, wanted in bodies(site)] == [
        None,
        "bytes=100000-",
        "bytes=100000-",
        "bytes=150000-",
    ]
    assert caplog.text.count(f"{NAMES[0]}: the connection was lost") == 3
    assert [path for path, _ in site.requests if path.endswith(".md5")] == [f"{path}.md5"], (
        "no request for files that are not wanted"
    )
    with (
        site.running() as base,
        pytest.raises(DataError, match="no published file matches --include pubmed99"),
    ):
        run(base, tmp_path, "--include", "pubmed99*")


def test_killed_in_a_file_goes_on_inside_it(site, tmp_path, monkeypatch):
    path = f"/pubmed/baseline/{NAMES[0]}"
    site.break_after[path] = [120_000] + [0] * transfer.ATTEMPTS
    with site.running() as base:
        with pytest.raises(DataError, match="1 file could not be downloaded"):
            run(base, tmp_path, "--include", NAMES[0])
        assert not (tmp_path / NAMES[0]).exists()
        site.requests.clear()
        run(base, tmp_path, "--include", NAMES[0])
        assert bodies(site) == [(NAMES[0], "bytes=120000-")]
    assert (tmp_path / NAMES[0]).read_bytes() == site.files[path]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changes_meanwhile_is_fetched_anew(site, tmp_path, ranges):
    """A half of the old file and a half of the new one are never put together."""
    path = f"/pubmed/baseline/{NAMES[0]}"
    site.break_after[path] = [120_000] + [0] * transfer.ATTEMPTS
    with site.running() as base:
        with pytest.raises(DataError):
            run(base, tmp_path, "--include", NAMES[0])
        site.files[path] = gzip.compress(random.Random(9).randbytes(300_000))
        site.files[f"{path}.md5"] = hashlib.md5(site.files[path]).hexdigest().encode()
        site.version, site.ranges = '"v2"', ranges
        run(base, tmp_path, "--include", NAMES[0])
    assert (tmp_path / NAMES[0]).read_bytes() == site.files[path]


def test_throttling_is_obeyed(site, tmp_path):
    path = f"/pubmed/baseline/{NAMES[0]}"
    site.refuse[path] = [
        (429, {"Retry-After": "1"}),
        (503, {}),
        (429, {"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}),
    ]
    start = time.monotonic()
    with site.running() as base:
        run(base, tmp_path, "--include", NAMES[0])
    assert time.monotonic() - start >= 1
    assert (tmp_path / NAMES[0]).exists()
    assert len(bodies(site)) == 4


def test_rates_are_kept(site, tmp_path):
    start = time.monotonic()
    with site.running() as base:
        run(base, tmp_path, "--max-rate", "1", "--requests-per-second", "20")
    assert time.monotonic() - start >= 0.6, "900 kB at 1 MB/s, the last block of each file aside"
    assert len(site.requests) == 7


def test_small_resources_count_too(site):
    """PMC's articles come as such: their bytes are shown, and kept within the rate."""
    fetched, came = transfer.Transfer(1000, bytes_per_second=1e6), []
    fetched.on_bytes = came.append
    start = time.monotonic()
    with site.running() as base:
        data = fetched.get(f"{base}/pubmed/baseline/{NAMES[0]}")
    assert came == [len(data)]
    assert time.monotonic() - start >= 0.3, "300 kB at 1 MB/s"


def test_a_wrong_checksum_keeps_nothing_and_the_others_come(site, tmp_path, caplog):
    path = f"/pubmed/baseline/{NAMES[1]}"
    site.files[f"{path}.md5"] = b"0" * 32
    with (
        site.running() as base,
        pytest.raises(
            DataError,
            match=f"{NAMES[1]}: its md5 is .* published one is 0000.*twice; nothing was kept",
        ),
    ):
        run(base, tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {NAMES[0], NAMES[2], "downloads.jsonl"}
    assert bodies(site).count((NAMES[1], None)) == 2
    assert f"failed: {NAMES[1]}" in caplog.text


def test_messages(site, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("S2_API_KEY", raising=False)
    monkeypatch.setattr(transfer, "_LOGGED_WAIT", 0)
    del site.files[f"/pubmed/baseline/{NAMES[2]}"]
    with site.running() as base:
        with pytest.raises(DataError, match=rf"{NAMES[2]}: HTTP 404"):
            run(base, tmp_path / "a")
        with pytest.raises(UsageError, match="set S2_API_KEY"):
            run(base, tmp_path / "b", source="s2orc")
        with pytest.raises(DataError, match=r"/pubmed/updatefiles/: HTTP 404"):
            run(base, tmp_path / "c", source="medline-updates")
        with pytest.raises(UsageError, match="no source 'medlin'"):
            run(base, tmp_path / "d", source="medlin")
    caplog.clear()
    with pytest.raises(DataError, match="cannot be downloaded: connection refused, 8 times"):
        run(base, tmp_path / "e")
    told = caplog.text
    assert told.count("connection refused; next attempt in") == 7, (
        "nobody waits behind the last attempt"
    )
    assert "(attempt 2 of 8)" in told
    assert "(attempt 8 of 8)" in told
    with pytest.raises(
        UsageError, match=r"--base-url mirror\.org: an address begins with https://"
    ):
        run("mirror.org", tmp_path / "f")


def test_a_stop_ends_waits_and_requests(site):
    """A stop ends a wait that a server asked for, and the rest of a package of PMC.

    Otherwise Ctrl-C would wait for an hour.
    """
    path = f"/pubmed/baseline/{NAMES[0]}"
    site.refuse[path] = [(429, {"Retry-After": "3600"})]
    stopped = transfer.Transfer(1000)
    with site.running() as base, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stopped.get, f"{base}{path}")
        while not site.requests:
            time.sleep(0.01)
        stopped.stopped.set()
        with pytest.raises(DataError, match=f"{NAMES[0]}: stopped"):
            waiting.result(timeout=300)
    assert len(site.requests) == 1


def test_a_full_disk_is_said_at_once(site, tmp_path):
    with site.running() as base:
        (tmp_path / f".{NAMES[0]}.partial").symlink_to("/dev/full")
        with pytest.raises(DataError, match=r"cannot write .*: No space left on device"):
            run(base, tmp_path, "--include", NAMES[0])
    assert len(bodies(site)) == 1


def test_dry_run(site, tmp_path, capsys):
    with site.running() as base:
        run(base, tmp_path, "--dry-run", "--include", "*n0001*", "--include", "*n0003*")
    assert capsys.readouterr().out.split() == [NAMES[0], NAMES[2]]
    assert bodies(site) == []


def test_semantic_scholar(tmp_path, monkeypatch):
    monkeypatch.setenv("S2_API_KEY", "secret")
    site = Site()
    site.files["/files/part0.gz?sign=ature"] = gzip.compress(b"{}" * 1000)
    site.files["/files/part1.gz?sign=ature"] = gzip.compress(b"{}" * 1000)[:-5]
    with site.running() as base:
        listing = {
            "files": [f"{base}/files/part0.gz?sign=ature", f"{base}/files/part1.gz?sign=ature"]
        }
        site.files["/datasets/v1/release/latest/dataset/s2orc"] = json.dumps(listing).encode()
        with pytest.raises(DataError, match=r"part1\.gz: it is not complete gzip data"):
            run(base, tmp_path, source="s2orc")
    assert site.headers[0]["x-api-key"] == "secret"
    assert not any("x-api-key" in headers for headers in site.headers[1:])
    [entry] = entries(tmp_path)
    assert (entry["name"], entry["checked"], entry["url"]) == (
        "part0.gz",
        "gzip",
        f"{base}/files/part0.gz",
    )


def test_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "token")
    site, large, small = Site(), b"parquet" * 100, b"# card"
    blob = hashlib.sha1(f"blob {len(small)}\0".encode() + small).hexdigest()
    lfs = {"size": len(large), "sha256": hashlib.sha256(large).hexdigest()}
    answer = {
        "sha": "c0ffee",
        "siblings": [
            {"rfilename": "en/a b.parquet", "size": len(large), "lfs": lfs},
            {"rfilename": "README.md", "size": len(small), "blobId": blob},
        ],
    }
    site.files["/api/datasets/some/name/revision/main?blobs=true"] = json.dumps(answer).encode()
    site.files["/datasets/some/name/resolve/c0ffee/en/a b.parquet"] = large
    site.files["/datasets/some/name/resolve/c0ffee/README.md"] = small
    with site.running() as base:
        run(base, tmp_path, source="hf:some/name")
        assert (tmp_path / "en/a b.parquet").read_bytes() == large
        assert {entry["name"]: entry["checked"] for entry in entries(tmp_path)} == {
            "README.md": "git",
            "en/a b.parquet": "sha256",
        }
        assert all(headers["Authorization"] == "Bearer token" for headers in site.headers)
        for name in ("../../evil", "en/..", "/evil"):
            answer["siblings"][0]["rfilename"] = name
            site.files["/api/datasets/some/name/revision/main?blobs=true"] = json.dumps(
                answer
            ).encode()
            with pytest.raises(DataError, match="outside its folder"):
                run(base, tmp_path, source="hf:some/name")


def pmc_site(site, articles):
    """Fill in PMC's bucket: (PMCID, version, license code) -> article."""
    rows = []
    for (number, version, code), data in articles.items():
        name = f"PMC{number}.{version}"
        md5 = hashlib.md5(data).hexdigest()
        site.files[f"/{name}/{name}.xml"] = data
        meta = {
            "pmcid": f"PMC{number}",
            "license_code": code,
            "is_pmc_openaccess": True,
            "xml_url": f"s3://pmc-oa-opendata/{name}/{name}.xml?md5={md5}",
        }
        site.files[f"/metadata/{name}.json"] = json.dumps(meta).encode()
        rows.append(
            f'"pmc-oa-opendata","metadata/{name}.json","{md5}","2026-11-01T00:00:00.000Z"\n'
        )
    data = gzip.compress("".join(rows).encode())
    folder = "inventory-reports/pmc-oa-opendata/metadata/"
    site.files[f"/{folder}data/x.csv.gz"] = data
    manifest = {
        "fileSchema": "Bucket, Key, ETag, LastModifiedDate",
        "files": [{"key": f"{folder}data/x.csv.gz", "MD5checksum": hashlib.md5(data).hexdigest()}],
    }
    site.files[f"/{folder}2026-11-02T01-00Z/manifest.json"] = json.dumps(manifest).encode()
    site.files[f"/{folder}2026-11-01T01-00Z/manifest.json"] = b"old"
    keys = "".join(
        f"<Contents><Key>{folder}2026-11-0{n}T01-00Z/manifest.json</Key></Contents>" for n in (2, 1)
    )
    site.files[f"/?list-type=2&prefix={folder}"] = (
        f"<ListBucketResult>{keys}</ListBucketResult>".encode()
    )


def article(number):
    return FIXTURE.read_bytes().replace(b">12345<", f">{number}<".encode())


def test_pmc_packages_by_license(tmp_path):
    codes = {
        (1000, 1): "CC BY",
        (1000, 2): "CC BY",
        (1001, 1): "CC BY-NC",
        (1999, 1): "CC0",
        (2000, 1): "CC BY-NC-ND",
        (2001, 1): "TDM",
    }
    articles = {(*key, code): article(key[0]) + b"\n" * key[1] for key, code in codes.items()}
    site = Site()
    pmc_site(site, articles)
    with site.running() as base:
        run(base, tmp_path, "--license", "comm", "noncomm", source="pmc")
        names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.tar.gz"))
        assert names == [
            "comm/PMC000001xxx.tar.gz",
            "noncomm/PMC000001xxx.tar.gz",
            "noncomm/PMC000002xxx.tar.gz",
        ]
        with tarfile.open(tmp_path / names[0]) as archive:
            assert archive.getnames() == ["PMC1000.2.xml", "PMC1999.1.xml"]
            assert archive.extractfile("PMC1000.2.xml").read() == articles[1000, 2, "CC BY"]
        assert [
            document.id
            for document in JatsReader(str(tmp_path / "comm")).read_file("PMC000001xxx.tar.gz")
        ] == ["PMC1000", "PMC1999"]
        site.requests.clear()
        run(base, tmp_path, "--license", "comm", "noncomm", source="pmc")
        assert not any("/PMC" in path for path, _ in site.requests), (
            "nothing changed, nothing is fetched"
        )
        pmc_site(site, articles | {(1500, 1, "CC BY"): article(1500)})
        run(base, tmp_path, "--license", "comm", "noncomm", source="pmc")
        assert not any("/PMC2" in path for path, _ in site.requests)
        with tarfile.open(tmp_path / names[0]) as archive:
            assert archive.getnames() == ["PMC1000.2.xml", "PMC1500.1.xml", "PMC1999.1.xml"]
        site.files["/PMC1500.1/PMC1500.1.xml"] = b"tampered"
        with pytest.raises(DataError, match=r"PMC1500\.1\.xml: its MD5 is not .*, twice"):
            run(base, tmp_path / "other", source="pmc")


def test_license_groups():
    codes = {
        "CC0": "comm",
        "CC BY": "comm",
        "CC BY-SA": "comm",
        "CC BY-ND": "comm",
        "CC BY-NC": "noncomm",
        "CC BY-NC-ND": "noncomm",
        "TDM": "other",
    }
    assert {code: license_group(code) for code in codes} == codes
    assert license_group(None) == license_group("CC BY", open_access=False) == "other"


def test_a_benchmark_comes_in_the_layout_that_its_task_reads(tmp_path):
    from evaluation.tasks import task

    site, record = Site(), {"QUESTION": "Is it?", "CONTEXTS": ["a", "b"], "final_decision": "yes"}
    site.files["/pubmedqa/pubmedqa/master/data/ori_pqal.json"] = json.dumps(
        {"1": record, "2": record}
    ).encode()
    site.files["/pubmedqa/pubmedqa/master/data/test_ground_truth.json"] = b'{"2": "yes"}'
    with site.running() as base:
        assert run(base, tmp_path / "pubmedqa", source="pubmedqa") == 0
        assert run(base, tmp_path / "pubmedqa", source="pubmedqa") == 0
    assert len(site.requests) == 2  # what is there is not fetched again
    [question] = task.load("pubmedqa")[1].questions(tmp_path)
    assert (question.id, question.answer) == ("2", "A")
