"""A killed curation started again: resumed, started from the beginning, or refused; never mixed."""

import logging
import os
import shutil

import pytest

from data_prep import curate
from data_prep.curation import pipeline
from galen import run_identity
from galen.errors import DataError, OutputConflictError
from galen.run_folder import RunFolder
from tests.data_prep.material import many_records, read_records, write_lines, write_medline
from tests.data_prep.test_curate import files_of


@pytest.fixture
def raw(tmp_path):
    """Two MEDLINE files and one of JSON lines."""
    write_medline(tmp_path / "raw/a.xml", many_records(1, 40))
    write_medline(tmp_path / "raw/b.xml", many_records(101, 40))
    lines = [{"id": f"x{n}", "text": f"The text of record {n}."} for n in range(40)]
    write_lines(tmp_path / "raw/c.jsonl", lines)
    return tmp_path / "raw"


@pytest.fixture
def recipe(tmp_path, raw):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""\
output: {tmp_path / "corpus"}
sources:
- {{reader: medline, path: {raw}}}
- {{reader: records, path: {raw}}}
steps: [abstract, exact_dedup]
split: {{train: 1, validation: 0, test: 0}}
"""
    )
    return path


@pytest.fixture
def swapped_recipe(recipe):
    """The recipe with its sources in the other order."""
    lines = recipe.read_text().splitlines(keepends=True)
    lines[2], lines[3] = lines[3], lines[2]
    path = recipe.with_name("swapped.yaml")
    path.write_text("".join(lines))
    return path


@pytest.fixture
def partial(tmp_path, recipe, monkeypatch):
    """The working folder of a run that was killed when all tasks were done."""

    def kill(run, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunFolder, "publish", kill)
        curate.main([str(recipe), "--workers", "2"])
    return tmp_path / ".corpus.partial"


def written_at(partial, tmp_path):
    """Return a function with the time of writing of a stage's file, which outlives the folder."""
    witness = tmp_path / "witness"
    os.link(partial / "documents-0/00000.jsonl.gz", witness)
    return lambda: witness.stat().st_mtime_ns


@pytest.mark.slow
def test_inputs_with_a_new_time_are_resumed(recipe, raw, partial, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    time_of_file = written_at(partial, tmp_path)
    before = time_of_file()
    expected = files_of(partial / "corpus")
    for path in raw.iterdir():
        os.utime(path, (1, 1))
    curate.main([str(recipe), "--workers", "2"])
    assert "resuming" in caplog.text
    assert "discarding" not in caplog.text
    assert time_of_file() == before, "a finished task was done again"
    assert files_of(tmp_path / "corpus") == expected


@pytest.mark.slow
def test_sources_in_another_order_start_from_the_beginning(
    swapped_recipe, partial, tmp_path, caplog
):
    curate.main([str(swapped_recipe), "--workers", "2"])
    assert "discarding an unfinished run" in caplog.text
    assert 'sources.0.reader: "medline" → "records"' in caplog.text
    curate.main([str(swapped_recipe), "--workers", "2", f"output={tmp_path / 'undisturbed'}"])
    assert files_of(tmp_path / "corpus") == files_of(tmp_path / "undisturbed")


@pytest.mark.slow
def test_files_in_another_order_start_from_the_beginning(recipe, raw, partial, tmp_path, caplog):
    (raw / "a.xml").rename(raw / "z.xml")
    (raw / "b.xml").rename(raw / "a.xml")
    curate.main([str(recipe), "--workers", "2"])
    assert "input b.xml: removed; input z.xml: added" in caplog.text
    curate.main([str(recipe), "--workers", "2", f"output={tmp_path / 'undisturbed'}"])
    assert files_of(tmp_path / "corpus") == files_of(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_run_of_another_version_is_refused_and_kept(recipe, partial, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(run_identity, "VERSION", "99.0")
        with pytest.raises(OutputConflictError, match=r"this is galen 99\.0: .* Resume with galen"):
            curate.main([str(recipe), "--workers", "2"])
        with pytest.raises(OutputConflictError, match=r"remove .*\.corpus\.partial to start from"):
            curate.main([str(recipe), "--workers", "2", "steps=[abstract]"])
    time_of_file = written_at(partial, tmp_path)
    before = time_of_file()
    curate.main([str(recipe), "--workers", "2"])
    assert time_of_file() == before, "a finished task was done again"


@pytest.mark.slow
def test_an_input_that_changes_while_it_is_read_is_an_error(recipe, raw, tmp_path, monkeypatch):
    def build_and_change(*arguments):
        counts = build(*arguments)
        os.utime(raw / "a.xml", (1, 1))
        (raw / "b.xml").write_text("another file")
        return counts

    build = pipeline.build
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "build", build_and_change)
        with pytest.raises(DataError, match=r"b\.xml was changed or removed while the corpus was"):
            curate.main([str(recipe), "--workers", "2"])
    assert not (tmp_path / "corpus").exists()
    write_medline(raw / "b.xml", many_records(201, 40))
    curate.main([str(recipe), "--workers", "2"])
    assert len(read_records(tmp_path / "corpus")) == 120


@pytest.mark.slow
def test_a_second_start_is_refused_and_changes_nothing(recipe, partial, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "corpus")
    before = files_of(partial)
    with RunFolder(tmp_path / "corpus", "curate").lock():
        for override in ("", f"output={tmp_path / 'link'}", "steps=[abstract]"):
            with pytest.raises(DataError, match=r"is being written by .* wait for it, or end it"):
                curate.main([str(recipe), *filter(None, [override])])
    assert files_of(partial) == before
    assert not (tmp_path / "corpus").exists()


@pytest.fixture
def leftover_job(partial):
    path = partial / "log/read/job"
    path.write_text("1234")
    return path


@pytest.mark.slow
def test_a_leftover_slurm_job_is_canceled_by_any_executor_and_recipe(
    recipe, leftover_job, tmp_path, monkeypatch
):
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "canceled"
    for name, script in (("scancel", f'echo "$@" >> {log}'), ("squeue", "true")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    curate.main([str(recipe), "--workers", "2", "steps=[abstract]"])
    assert log.read_text() == "1234\n"
    assert (tmp_path / "corpus/manifest.json").exists()


@pytest.mark.slow
def test_a_leftover_slurm_job_that_cannot_be_canceled_is_an_error(
    recipe, leftover_job, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="the Slurm job 1234 of an interrupted run may still be"):
        curate.main([str(recipe)])
    assert leftover_job.exists()


@pytest.mark.slow
def test_another_tokenizer_under_the_same_path_is_another_run(
    recipe, tmp_path, tokenizer_folder, caplog
):
    tokenizer = tmp_path / "tokenizer.json"
    shutil.copy(tokenizer_folder / "tokenizer.json", tokenizer)
    command = [str(recipe), "--workers", "2", f"tokenizer={tokenizer}"]
    curate.main(command)
    text = tokenizer.read_text()
    tokenizer.write_text(text + "\n")
    with pytest.raises(OutputConflictError, match=r"belongs to another run \(files\..*tokenizer"):
        curate.main(command)
    tokenizer.write_text(text)
    curate.main(command)  # which is complete
