"""A folder that is taken for a Megatron checkpoint: the message says what it is."""

import pytest

from galen.errors import DataError
from megatron_ext import checkpoint_folder


@pytest.mark.parametrize(
    ("folder", "file", "message"),
    [
        ("none", "", "there is no such folder"),
        ("hf", "config.json", r"it is a Hugging Face model, which checkpoints_convert/hf_to_megatron\.py imports"),
        ("iter_0000010", ".metadata", "give the folder above it"),
        ("run", "checkpoints/latest_checkpointed_iteration.txt", "give .*/run/checkpoints"),
        ("other", "notes.txt", r"no latest_checkpointed_iteration\.txt in it"),
    ],
)
def test_what_is_no_checkpoint_is_told_for_what_it_is(tmp_path, folder, file, message):
    if file:
        (tmp_path / folder / file).parent.mkdir(parents=True)
        (tmp_path / folder / file).touch()
    with pytest.raises(DataError, match=f"{folder} is not a Megatron checkpoint: .*{message}"):
        checkpoint_folder.newest(tmp_path / folder)
