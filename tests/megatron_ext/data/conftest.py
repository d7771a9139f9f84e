import pytest

from tests.megatron_ext.conftest import build_datasets, write


@pytest.fixture
def built(tmp_path, group_of_one, checkpoint):
    """Return a function that builds a recipe's datasets, with one file for train and validation."""

    def build(documents, *overrides):
        prefix = write(tmp_path / "d_text_document", documents)
        return build_datasets(tmp_path, checkpoint, prefix, -2, *overrides)

    return build
