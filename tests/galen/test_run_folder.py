import json
import logging
import os

import pytest

from galen import manifest, run_folder, run_identity
from galen.errors import DataError, OutputConflictError
from galen.run_folder import RunFiles, RunFolder
from galen.run_identity import Identity

FILE = {"path": "raw/a.xml", "bytes": 1, "sha256": "11"}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return path


def test_inputs_that_do_not_decide_are_not_compared():
    assert Identity({}).differences(Identity({}, [FILE])) == []


def finish(folder, identity, stage="s"):
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(
        folder / manifest.NAME,
        stage=stage,
        inputs=identity.inputs or [],
        config=identity.config,
        outputs=[],
        counts={},
    )


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"seed": 1}, {"seed": 1, "limit": None}, []),
        ({"seed": 1}, {"seed": 2}, ["seed: 1 → 2"]),
        ({"dtype": "bf16"}, {"limit": 2}, ['dtype: "bf16" → not set', "limit: not set → 2"]),
        ({"a": {"b": 1, "c": (1, 2)}}, {"a": {"b": 2, "c": [1, 2]}}, ["a.b: 1 → 2"]),
        (
            {"sources": [{"path": "a", "reader": "jats"}]},
            {"sources": [{"path": "b", "reader": "jats"}]},
            ['sources.0.path: "a" → "b"'],
        ),
        ({"steps": [{"a": 1}]}, {"steps": []}, ['steps: [{"a": 1}] → []']),
        ({"text": "x" * 500}, {"text": "y"}, ["text: " + '"' + 58 * "x" + '… → "y"']),
    ],
)
def test_differences_are_named_by_key(before, now, expected):
    earlier = Identity(json.loads(json.dumps(before)))
    assert Identity(now).differences(earlier) == expected


def test_keys_and_sections_that_may_change_make_no_difference():
    earlier = Identity({"parallel": {"tensor": 1}, "train": {"interval": 5, "seed": 1}, "p": 1})
    now = {"parallel": {"tensor": 2}, "train": {"interval": 9, "seed": 1}, "p": 1}
    may_change = ("parallel", "train.interval")
    assert Identity(now, may_change=may_change).differences(earlier) == []
    assert Identity(now, may_change=("par",)).differences(earlier) != []
    record = Identity(now, may_change=may_change).record()
    assert record["config"] == {"train": {"seed": 1}, "p": 1}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([{**FILE, "path": "moved/a.xml"}], []),
        ([{**FILE, "sha256": "22"}], ["input a.xml: changed"]),
        ([FILE, {**FILE, "path": "b.xml"}], ["input b.xml: added"]),
        ([{**FILE, "path": "c.xml"}], ["input a.xml: removed", "input c.xml: added"]),
        ([FILE, FILE], ["the order or number of input files"]),
    ],
)
def test_input_files_are_compared_by_name_and_content(now, expected):
    assert Identity({}, now).differences(Identity({}, [FILE])) == expected


def test_remote_files_are_compared_by_version():
    earlier = Identity({}, [{"path": "s3://b/a", "bytes": 1, "sha256": None, "version": "v1"}])
    for version, expected in (("v1", []), ("v2", ["input a: changed"])):
        now = [{"path": "s3://b/a", "bytes": 1, "sha256": None, "version": version}]
        assert Identity({}, now).differences(earlier) == expected


def test_a_file_is_hashed_only_when_its_path_size_or_time_differ(source, monkeypatch):
    record = {**manifest.describe_file(source), **run_identity.stat_record(source)}
    now = Identity({}, [run_identity.stat_record(source)])
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "sha256", None)
        assert now.differences(Identity({}, [record])) == []
    os.utime(source, (1, 1))
    now = Identity({}, [run_identity.stat_record(source)])
    assert now.differences(Identity({}, [record])) == []
    source.write_bytes(b"other w")
    assert now.differences(Identity({}, [record])) == ["input model.bin: changed"]


def test_a_finished_folder_is_recognized_and_any_other_refused(tmp_path):
    run = RunFolder(tmp_path / "out", "s")
    identity = Identity({"seed": 1, "a": 1, "b": 1, "c": 1})
    assert run.finished(identity) is None
    finish(tmp_path / "out", identity)
    existing = run.finished(identity)
    assert existing is not None and existing["config"] == identity.config
    message = r"out belongs to another run \(seed: 1 → 2\); remove it or choose another output"
    with pytest.raises(OutputConflictError, match=message):
        run.finished(Identity({**identity.config, "seed": 2}))
    with pytest.raises(OutputConflictError, match=r"\(seed: .*; a: .*; b: .*; and 1 more\)"):
        run.finished(Identity({}))
    with pytest.raises(OutputConflictError, match=r"by the stage 's'.*; remove .*out or choose"):
        RunFolder(tmp_path / "out", "another").finished(identity)
    (tmp_path / "out" / manifest.NAME).write_text("{")
    with pytest.raises(OutputConflictError, match="is not a manifest"):
        run.finished(identity)
    (tmp_path / "out" / manifest.NAME).unlink()
    with pytest.raises(OutputConflictError, match="exists already and was not made by this"):
        run.finished(identity)


def test_an_unfinished_run_is_resumed_and_another_one_discarded(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = RunFolder(tmp_path / "out", "s")
    identity = Identity({"seed": 1, "rate": 0.1}, [FILE], may_change={"rate"})
    assert not run.resume(identity)
    (run.partial / "half").touch()
    changed = Identity({"seed": 1, "rate": 0.2}, [FILE], may_change={"rate"})
    assert run.resume(changed) and (run.partial / "half").exists()
    assert not caplog.records
    assert not run.resume(Identity({"seed": 2}, [FILE]))
    assert not (run.partial / "half").exists()
    assert "discarding an unfinished run" in caplog.text and "seed: 1 → 2" in caplog.text
    (run.partial / "half").touch()
    (run.partial / run_folder.IDENTITY).write_bytes(b"\xff{")
    assert not run.resume(Identity({"seed": 2}, [FILE]))
    assert not (run.partial / "half").exists() and "its state is damaged" in caplog.text


def test_an_unfinished_run_of_another_version_is_refused_and_kept(tmp_path, monkeypatch):
    identity = Identity({"seed": 1}, [FILE])
    run = RunFolder(tmp_path / "out", "s")
    run.resume(identity)
    (run.partial / "half").touch()
    files = RunFiles(tmp_path / "p", [tmp_path / "p.bin"])
    files.begin(identity, {"documents": 3})
    with monkeypatch.context() as patched:
        patched.setattr(run_identity, "VERSION", "99.0")
        for changed in (identity, Identity({"seed": 2})):
            with pytest.raises(OutputConflictError, match=r"remove .*\.out\.partial to start"):
                run.resume(changed)
            with pytest.raises(OutputConflictError, match=r"remove .*\.p\.state\.partial to start"):
                files.begin(changed)
    assert run.resume(identity) and (run.partial / "half").exists()
    assert files.begin(identity) == {"documents": 3}


def test_a_link_in_place_of_the_working_folder_is_not_followed(tmp_path):
    run = RunFolder(tmp_path / "out", "s")
    identity = Identity({})
    assert not run.resume(identity)
    run.partial.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "precious").touch()
    run.partial.symlink_to(tmp_path / "elsewhere")
    assert not run.resume(identity)
    assert not run.partial.is_symlink() and (tmp_path / "elsewhere" / "precious").exists()


def test_the_working_folder_becomes_the_output(tmp_path):
    run = RunFolder(tmp_path / "deep" / "out", "s")
    run.resume(Identity({}))
    (run.partial / "corpus").mkdir()
    (run.partial / "corpus" / "file").touch()
    run.publish(run.partial / "corpus")
    assert [path.name for path in run.output.iterdir()] == ["file"] and not run.partial.exists()
    second = RunFolder(tmp_path / "second", "s")
    second.resume(Identity({}))
    (second.partial / "file").touch()
    second.publish()
    assert [path.name for path in second.output.iterdir()] == ["file"]


def test_an_output_made_meanwhile_stays(tmp_path):
    run = RunFolder(tmp_path / "out", "s")
    run.resume(Identity({}))
    run.output.mkdir()
    (run.output / "precious").touch()
    with pytest.raises(OutputConflictError, match=r"move it away .* is in .*\.out\.partial"):
        run.publish()
    assert (run.output / "precious").exists() and run.partial.exists()


def test_a_linked_output_is_written_where_the_link_leads(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "data")
    run = RunFolder(tmp_path / "out", "s")
    run.resume(Identity({}))
    assert run.partial == tmp_path / "disk" / ".data.partial"
    run.publish()
    assert (tmp_path / "disk" / "data").is_dir() and (tmp_path / "out").is_symlink()
    with run.lock(), pytest.raises(DataError, match="is being written by"):
        run.lock().__enter__()


def test_files_are_resumed_by_the_same_run_only(tmp_path, caplog):
    final = tmp_path / "p.bin"
    files = RunFiles(tmp_path / "p", [final])
    assert files.begin(Identity({"seed": 1})) is None
    files.save({"documents": 3})
    final.touch()
    again = RunFiles(tmp_path / "p", [final])
    assert again.begin(Identity({"seed": 1})) == {"documents": 3}
    with pytest.raises(OutputConflictError, match=r"p\.bin belongs to another run \(seed: 1 → 2"):
        again.begin(Identity({"seed": 2}))
    final.unlink()
    assert again.begin(Identity({"seed": 2})) is None
    assert "seed: 1 → 2" in caplog.text
    again.end()
    assert list(tmp_path.iterdir()) == []


def test_files_of_an_unfinished_run_of_another_version_are_replaced(tmp_path, monkeypatch):
    """Killed between a rename and the manifest, and upgraded before the next start."""
    final = tmp_path / "p.bin"
    identity = Identity({"seed": 1}, [FILE])
    RunFiles(tmp_path / "p", [final]).begin(identity)
    final.touch()
    monkeypatch.setattr(run_identity, "VERSION", "99.0")
    again = RunFiles(tmp_path / "p", [final])
    message = r"p\.bin belongs to another run \(seed: 1 → 2"
    with pytest.raises(OutputConflictError, match=message):
        again.begin(Identity({"seed": 2}, [FILE]))
    assert again.begin(identity) is None
    with again.working(identity):
        pass
    assert final.exists() and not again.state_path.exists()
    again.state_path.write_text("{")
    with pytest.raises(OutputConflictError, match="exists already and was not made by"):
        again.begin(identity)


def test_a_failed_run_leaves_its_identity_beside_its_files_alone(tmp_path):
    final = tmp_path / "p.bin"
    files = RunFiles(tmp_path / "p", [final])
    with pytest.raises(KeyboardInterrupt), files.working(Identity({})):
        raise KeyboardInterrupt
    assert not files.state_path.exists()
    with pytest.raises(KeyboardInterrupt), files.working(Identity({})):
        final.touch()
        raise KeyboardInterrupt
    assert files.state_path.exists()
    with files.working(Identity({})):
        pass
    assert not files.state_path.exists()


def test_a_folder_is_bound_once_it_holds_work(tmp_path):
    folder = tmp_path / "scores"
    assert not run_folder.bind(folder, Identity({"dtype": "float32"}))
    # nothing was written under the first
    assert not run_folder.bind(folder, Identity({"dtype": "bfloat16"}))
    (folder / "samples.jsonl").write_text("{}\n")
    assert run_folder.bind(folder, Identity({"dtype": "bfloat16"}))
    named = Identity({"dtype": "bfloat16", "name": "x"}, may_change=["name"])
    assert run_folder.bind(folder, named)
    assert json.loads((folder / run_folder.CONFIGURATION).read_text())["name"] == "x"
    message = r'dtype: "bfloat16" → not set; name: "x" → not set; limit: not set → 2'
    with pytest.raises(OutputConflictError, match=message):
        run_folder.bind(folder, Identity({"limit": 2}))
    (folder / run_folder.CONFIGURATION).write_text("{")
    with pytest.raises(DataError, match="remove the folder and start again"):
        run_folder.bind(folder, named)


def test_a_folder_of_something_else_is_not_bound(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputConflictError, match="was not made by this command"):
        run_folder.bind(tmp_path, Identity({}))


@pytest.mark.parametrize("state", ["", ', "state": [1]', ', "state": null'])
def test_a_state_file_without_a_state_is_damaged(tmp_path, state):
    identity = Identity({"a": 1}, [])
    files = RunFiles(tmp_path / "out", [tmp_path / "out"])
    record = json.dumps(identity.record())
    files.state_path.write_text(f'{{"identity": {record}{state}}}')
    assert files.begin(identity) is None
    assert files.begin(identity) == {}
