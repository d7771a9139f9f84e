"""No copy follows a symbolic link out of its folder; links of the hub's cache are inside."""

import pytest

from checkpoints_convert.hf import folder as hf_folder
from galen import links
from galen.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_a_link_out_is_refused_and_nothing_copied(folder, tmp_path):
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret")
    for copy in (
        lambda: links.copy_files(
            [folder / "config.json", folder / "tokenizer.json"], folder, tmp_path / "copy"
        ),
        lambda: links.copy_folder(folder, tmp_path / "copy"),
    ):
        with pytest.raises(
            DataError,
            match=r"model/tokenizer\.json is a symbolic link to .*secret, outside its folder",
        ):
            copy()
        assert not (tmp_path / "copy").exists()


def test_so_is_a_linked_folder_and_a_chain_of_links(folder, tmp_path):
    (tmp_path / "private").mkdir()
    (folder / "below").symlink_to(tmp_path / "private")
    with pytest.raises(DataError, match="below is a symbolic link"):
        links.copy_folder(folder, tmp_path / "copy")
    (folder / "below").unlink()
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("../secret")
    with pytest.raises(DataError, match="one is a symbolic link"):
        links.copy_files([folder / "one"], folder, tmp_path / "copy")


def test_a_link_within_the_folder_is_followed(folder, tmp_path):
    (folder / "same.json").symlink_to("config.json")
    links.copy_folder(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "same.json").read_text() == "{}" and not (
        tmp_path / "copy" / "same.json"
    ).is_symlink()


def test_a_snapshot_of_the_hub_is_copied(tmp_path):
    repository = tmp_path / "models--o--n"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "123").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/123")
    links.copy_folder(snapshot, tmp_path / "copy")
    assert (tmp_path / "copy" / "config.json").read_text() == "{}"
    (tmp_path / "models--o--n" / "refs").write_text("x")
    (snapshot / "tokenizer.json").symlink_to("../../refs")
    with pytest.raises(DataError, match=r"tokenizer\.json is a symbolic link"):
        links.copy_folder(snapshot, tmp_path / "other")


def test_a_link_at_the_target_is_replaced(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "config.json").symlink_to(tmp_path / "secret")
    links.copy_folder(folder, tmp_path / "copy")
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "copy" / "config.json").read_text() == "{}"


@pytest.mark.parametrize("target", ["missing", "tokenizer.json", "other"])
def test_a_link_that_leads_nowhere_is_reported(folder, tmp_path, target):
    """A blob that was not fetched, a link to itself, two links to each other.

    If they were left out, the copy would silently lack a file.
    """
    (folder / "tokenizer.json").symlink_to(target)
    if target == "other":
        (folder / "other").symlink_to("tokenizer.json")
    for copy in (links.copy_folder, hf_folder.copy_companions):
        with pytest.raises(DataError, match=r"is a symbolic link to \S+, which leads nowhere"):
            copy(folder, tmp_path / "copy")
        assert not list(tmp_path.glob("copy/*"))
