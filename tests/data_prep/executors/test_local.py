import re

import pytest

from data_prep.executors.local import LocalExecutor
from galen.errors import DataError
from tests.data_prep.broken_step import FullDisk


def test_a_full_disk_is_named_by_its_folder(tmp_path):
    with pytest.raises(
        DataError, match=re.escape(f"{tmp_path}: No space left on device; free some space")
    ):
        LocalExecutor([FullDisk()], 1, 1, tmp_path / "log/read").run()
