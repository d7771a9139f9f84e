"""A folder that is taken for a Megatron checkpoint: the message says what it is."""

import pytest

from galen import manifest
from galen.errors import DataError
from megatron_ext.checkpoint import checkpoint_folder


@pytest.mark.parametrize(
    ("folder", "file", "message"),
    [
        ("none", "", "it does not exist"),
        (
            "hf",
            "config.json",
            r"it is a Hugging Face model, which `galen import` imports",
        ),
        ("iter_0000010", ".metadata", "give the folder above it"),
        ("run", "checkpoints/latest_checkpointed_iteration.txt", "give .*/run/checkpoints"),
        ("other", "notes.txt", r"no latest_checkpointed_iteration\.txt in it"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_described(tmp_path, folder, file, message):
    if file:
        (tmp_path / folder / file).parent.mkdir(parents=True)
        (tmp_path / folder / file).touch()
    with pytest.raises(DataError, match=f"{folder} is not a Megatron checkpoint: .*{message}"):
        checkpoint_folder.newest(tmp_path / folder)


def iteration(folder, number, *names):
    made = checkpoint_folder.iteration_folder(folder, number)
    made.mkdir(parents=True)
    for name in names:
        (made / name).write_text("{}")
    return made


COMPLETE = ("metadata.json", ".metadata", "__0_0.distcp")


@pytest.mark.parametrize(
    "tracker",
    [
        None,
        b"",
        b"\n",
        b"\xff\xfe\x00",
        "²".encode(),
        b"9" * 5000,
        b"-4",
        b"4.0",
        b"99",
        b"release",
        "folder",
    ],
)
def test_without_a_good_pointer_the_newest_complete_iteration_is_taken(tmp_path, tracker, caplog):
    iteration(tmp_path, 2, *COMPLETE)
    iteration(tmp_path, 4, *COMPLETE)
    # another trainer was killed while it wrote this one
    iteration(tmp_path, 6, "__0_0.distcp", ".metadata")
    # one of ours, of which the manifest is missing
    iteration(tmp_path, 8, *COMPLETE, "architecture.json")
    (tmp_path / "iter_x").mkdir()
    (tmp_path / "iter_²").mkdir()
    if tracker == "folder":
        (tmp_path / checkpoint_folder.LATEST).mkdir()
    elif tracker is not None:
        (tmp_path / checkpoint_folder.LATEST).write_bytes(tracker)
    assert checkpoint_folder.latest_iteration(tmp_path) == 4
    assert checkpoint_folder.newest(tmp_path).name == "iter_0000004"
    (warning,) = caplog.messages
    assert checkpoint_folder.LATEST in warning
    assert warning.endswith("using the newest complete iteration, 4")


def test_one_of_ours_is_complete_when_its_files_have_their_recorded_sizes(tmp_path):
    for number in (2, 4):
        made = iteration(tmp_path, number, *COMPLETE, "architecture.json")
        manifest.write(
            made / manifest.NAME,
            stage="checkpoint",
            inputs=[],
            config={},
            outputs=sorted(made.iterdir()),
            counts={},
        )
    assert checkpoint_folder.latest_iteration(tmp_path) == 4
    (made / "__0_0.distcp").write_text("")
    assert checkpoint_folder.latest_iteration(tmp_path) == 2


def test_a_valid_pointer_is_obeyed(tmp_path, capsys):
    iteration(tmp_path, 2, *COMPLETE)
    iteration(tmp_path, 4, *COMPLETE)
    checkpoint_folder.set_latest(tmp_path, 2)
    assert checkpoint_folder.latest_iteration(tmp_path) == 2
    assert capsys.readouterr().err == ""


def test_no_iteration_is_complete(tmp_path):
    assert checkpoint_folder.latest_iteration(tmp_path) is None
    assert checkpoint_folder.latest_iteration(tmp_path / "none") is None
    iteration(tmp_path, 2, ".metadata")
    with pytest.raises(
        DataError,
        match=r"latest_checkpointed_iteration\.txt: .*and no iter_… folder in .* is complete",
    ):
        checkpoint_folder.latest_iteration(tmp_path)


def test_an_iteration_with_other_weights_is_set_aside(tmp_path, caplog):
    def partial(content):
        folder = checkpoint_folder.partial_folder(tmp_path, 4)
        folder.mkdir()
        (folder / "__0_0.distcp").write_text(content)
        (folder / "time").write_text(content * 2)
        outputs = [folder / "__0_0.distcp"]
        manifest.write(
            folder / manifest.NAME,
            stage="checkpoint",
            inputs=[],
            config={},
            outputs=outputs,
            counts={},
        )

    for content in ("one", "one", "two", "three"):
        partial(content)
        checkpoint_folder.publish(tmp_path, 4)
    assert {path.parent.name: path.read_text() for path in tmp_path.glob("*/*.distcp")} == {
        "replaced_iter_0000004": "one",
        "replaced_iter_0000004.1": "two",
        "iter_0000004": "three",
    }
    assert caplog.text.count("existed with other weights") == 2
