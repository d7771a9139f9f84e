import json
import os
import signal
import subprocess
import sys
import time

import pytest

from data_prep import curate
from galen.errors import DataError, UsageError
from galen.run_folder import RunFolder
from tests.conftest import ROOT
from tests.data_prep.material import FIXTURE, many_records, read_records, record_xml, write_medline


def files_of(folder):
    """Relative path -> bytes, without the manifest, which bears the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.jsonl.gz"))
    }


@pytest.mark.slow
def test_every_record_is_accounted_for(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'corpus'}\nsources: [{{reader: medline, path: {FIXTURE}}}]\n"
    )
    curate.main(
        [str(recipe), "--workers", "1", "split.train=1", "split.validation=0", "split.test=0"]
    )
    records = read_records(tmp_path / "corpus" / "train")
    assert {record["id"]: record["text"].split("\n")[0] for record in records} == {
        "1001": "Effect of Lactobacillus, corrected.",  # the later of two versions
        "1002": "A structured abstract.",
        "1004": "肺炎の臨床像と Über die Lungenentzündung.",
        "1005": "[A] and [B] compared in relaxation by T1=10^-4 ms",
    }
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["stage"] == "curate"
    counts = manifest["counts"]
    assert counts.pop("sources") == {"medline": {"read": 13, "kept": 4, **counts["dropped"]}}
    assert counts.pop("tokens")["total"] == sum(
        round(len(record["text"].encode()) / 4) for record in records
    )
    assert counts == {
        "read": 13,
        "kept": 4,
        "dropped": {
            "reader: book record": 1,
            "abstract: no abstract": 1,
            "abstract: no text": 1,
            "retraction: retracted article": 1,
            "retraction: retraction notice": 1,
            "copyright: rights reserved": 2,
            "reader: superseded by a later version": 1,
            "exact_dedup: same text": 1,
        },
        "extra_repeats": 0,
        "changed": {},
        "splits": {"train": 4},
        "bytes": sum(len(record["text"].encode()) for record in records),
        "quarantined": 0,
        "broken_files": 0,
    }
    assert "copyright: rights reserved" in capsys.readouterr().out


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers_and_any_interruption(
    tmp_path, recipe_file, monkeypatch
):
    curate.main([str(recipe_file), "--workers", "1"])
    once = files_of(tmp_path / "corpus")
    assert len(once) == 9
    curate.main([str(recipe_file), "--workers", "3", f"output={tmp_path / 'parallel'}"])
    assert files_of(tmp_path / "parallel") == once
    records = read_records(tmp_path / "corpus")
    assert len(records) == len({record["id"] for record in records}) == 300
    assert [record["text"] for record in records if record["id"] == "3"] == [
        "Report number 3, corrected.\n\nThe corrected text of case three."
    ]

    # what a run leaves that was killed while it wrote: some tasks marked as done, others
    # half-written
    def killed(run, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        curate.main([str(recipe_file), f"output={tmp_path / 'again'}"])
    monkeypatch.undo()
    assert not (tmp_path / "again").exists()
    partial = tmp_path / ".again.partial"
    (partial / "log/write/completions/00001").unlink()
    half = partial / "corpus/train/00001.jsonl.gz"
    half.write_bytes(half.read_bytes()[:100])
    # the same file under a second name, which outlives the clean-up
    os.link(partial / "documents-0/00000.jsonl.gz", tmp_path / "witness")
    written = (tmp_path / "witness").stat().st_mtime_ns
    curate.main([str(recipe_file), f"output={tmp_path / 'again'}"])
    assert files_of(tmp_path / "again") == once
    assert (tmp_path / "witness").stat().st_mtime_ns == written, "a finished task was done again"
    assert not partial.exists()


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path):
    """SIGKILL while it reads: no worker survives; a restart gives the uninterrupted bytes."""
    for n, count in enumerate((200, 1500, 1500, 1500)):
        write_medline(tmp_path / "raw" / f"{n}.xml", many_records(1 + 2000 * n, count))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'corpus'}\nsources: [{{reader: medline, path: {tmp_path / 'raw'}}}]\n"
    )
    command = [sys.executable, str(ROOT / "data_prep/curate.py"), str(recipe), "--workers", "1"]
    partial = tmp_path / ".corpus.partial"
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    while not (partial / "log/read/completions/00000").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while group_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not group_alive(process.pid)
    assert not (tmp_path / "corpus").exists()
    os.link(partial / "documents-0/00000.jsonl.gz", tmp_path / "witness")
    written = (tmp_path / "witness").stat().st_mtime_ns
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "resuming" in result.stderr
    assert "datatrove" not in result.stderr
    assert (tmp_path / "witness").stat().st_mtime_ns == written, "a finished task was done again"
    curate.main([str(recipe), "--workers", "2", f"output={tmp_path / 'undisturbed'}"])
    assert files_of(tmp_path / "corpus") == files_of(tmp_path / "undisturbed")


def group_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_finished_run_is_reported_and_another_configuration_refused(
    recipe_file, tmp_path, medline_folder, caplog
):
    caplog.set_level("INFO")
    curate.main([str(recipe_file)])
    before = files_of(tmp_path / "corpus")
    caplog.clear()
    # as a kill after the last rename leaves it
    (tmp_path / ".corpus.partial/documents-0").mkdir(parents=True)
    curate.main([str(recipe_file)])
    assert "already complete" in caplog.text
    assert not (tmp_path / ".corpus.partial").exists()
    with pytest.raises(DataError, match="steps"):
        curate.main([str(recipe_file), "steps=[{step: language, languages: [fre]}]"])
    write_medline(medline_folder / "b.xml", [record_xml(7)])
    with pytest.raises(DataError, match=r"belongs to another run \(input b.xml: changed\)"):
        curate.main([str(recipe_file)])
    assert files_of(tmp_path / "corpus") == before


def test_an_unknown_output_is_refused(recipe_file, tmp_path):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(DataError, match="exists already"):
        curate.main([str(recipe_file)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sources.0.path=nowhere.xml", "nowhere.xml does not exist"),
        ("sources.0.path=raw/*.nothing", "no file matches the pattern"),
        ("sources.0.path=empty", "holds no file that ends in .xml"),
        ("sources.0.path=broken", "bad.xml, line .*broken XML"),
        (
            "steps=[{step: language, languages: [fre]}]",
            "train split would be empty: 301 records read, 0 kept",
        ),
    ],
)
def test_bad_input_is_one_message_and_no_output(
    recipe_file, tmp_path, override, message, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_medline(tmp_path / "broken" / "good.xml", many_records(1, 5))
    (tmp_path / "broken" / "bad.xml").write_bytes(FIXTURE.read_bytes()[:5000])
    with pytest.raises(DataError, match=message):
        curate.main([str(recipe_file), override, "--workers", "2"])
    assert not (tmp_path / "corpus").exists()


@pytest.mark.slow
def test_repaired_input_is_read(recipe_file, tmp_path, medline_folder):
    complete = (medline_folder / "b.xml").read_bytes()
    (medline_folder / "b.xml").write_bytes(complete[:5000])
    with pytest.raises(DataError, match=r"b\.xml"):
        curate.main([str(recipe_file), "--workers", "2"])
    (medline_folder / "b.xml").write_bytes(complete)
    curate.main([str(recipe_file), "--workers", "2"])
    assert len(read_records(tmp_path / "corpus")) == 300


def test_usage(recipe_file):
    with pytest.raises(UsageError, match="at least 1"):
        curate.main([str(recipe_file), "--workers", "0"])
    with pytest.raises(UsageError, match="must be 1"):
        curate.main([str(recipe_file), "split.train=0.1"])
    with pytest.raises(UsageError, match=r"sources\.0\.reader"):
        curate.main([str(recipe_file), "sources.0.reader=medlin"])
