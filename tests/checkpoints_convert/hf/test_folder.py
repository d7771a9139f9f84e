"""Companion files of a model, which are copied with it."""

import pytest

from checkpoints_convert.hf.folder import copy_companions
from galen.errors import DataError


def test_an_invalid_json_companion_is_reported_and_no_file_is_copied(tmp_path):
    source, target = tmp_path / "hf", tmp_path / "copy"
    source.mkdir()
    files = {
        "README.md": "{",
        "special_tokens.json": "[1]",
        "tokenizer_config.json": '{"model_max_length": NaN}',
    }
    for name, text in files.items():
        (source / name).write_text(text)
    assert [path.name for path in copy_companions(source, target)] == sorted(files)
    for text in ('{"chat_template": "{%', "", "\xff"):
        (source / "tokenizer_config.json").write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match=r"hf/tokenizer_config\.json is not JSON: "):
            copy_companions(source, tmp_path / "none")
        assert not (tmp_path / "none").exists()
