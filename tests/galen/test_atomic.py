import pytest

from galen.atomic import atomic_file, atomic_folder
from galen.errors import OutputConflictError


def test_file_appears_only_when_whole(tmp_path):
    final = tmp_path / "sub" / "out.txt"
    with pytest.raises(RuntimeError), atomic_file(final) as path:
        path.write_text("half")
        raise RuntimeError
    assert list(final.parent.iterdir()) == []
    with atomic_file(final) as path:
        path.write_text("whole")
        assert not final.exists()
    assert final.read_text() == "whole"


def test_folder_appears_only_when_complete_and_overwrites_nothing(tmp_path):
    final = tmp_path / "out"
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "left by a killed run").touch()
    with atomic_folder(final) as path:
        (path / "a").write_text("1")
        assert not final.exists()
    assert [p.name for p in final.iterdir()] == ["a"]
    with pytest.raises(OutputConflictError, match="exists already"), atomic_folder(final):
        pass


def test_a_folder_is_made_where_a_link_to_nothing_yet_leads(tmp_path):
    (tmp_path / "disk").mkdir()
    final = tmp_path / "out"
    final.symlink_to("disk/out")
    with atomic_folder(final) as path:
        assert path.parent == tmp_path / "disk"
        (path / "a").touch()
    assert final.is_symlink()
    assert [path.name for path in (tmp_path / "disk" / "out").iterdir()] == ["a"]
