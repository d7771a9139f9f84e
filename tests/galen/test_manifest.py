import hashlib

import pytest

from galen import manifest
from galen.errors import DataError


def test_write_and_read(tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out" / "a.txt"
    output.parent.mkdir()
    source.write_text("in")
    output.write_text("out")
    path = output.parent / manifest.NAME
    manifest.write(
        path,
        stage="s",
        inputs=[source],
        config={"k": 1},
        outputs=[output],
        counts={"documents": 2},
        note="x",
    )
    found = manifest.read(output.parent, stage="s")
    assert found["inputs"] == [
        {"path": str(source), "bytes": 2, "sha256": hashlib.sha256(b"in").hexdigest()}
    ]
    assert found["outputs"][0]["path"] == "a.txt"
    assert found["counts"] == {"documents": 2}
    assert found["note"] == "x"
    assert "python" in found["versions"]
    with pytest.raises(DataError, match="written by the stage 's'"):
        manifest.read(path, stage="t")


def test_missing_and_damaged(tmp_path):
    with pytest.raises(DataError, match="cannot read the manifest"):
        manifest.read(tmp_path)
    with pytest.raises(DataError, match=r"cannot read the manifest .*none\.json"):
        manifest.read(tmp_path / "none.json")
    with pytest.raises(DataError, match=f"^there is no folder {tmp_path}/none; give "):
        manifest.read(tmp_path / "none")
    with pytest.raises(DataError, match="give the one that `galen curate` wrote"):
        manifest.read(tmp_path / "none", stage="curate")
    (tmp_path / manifest.NAME).write_text("{")
    with pytest.raises(DataError, match="is not a manifest"):
        manifest.read(tmp_path)
