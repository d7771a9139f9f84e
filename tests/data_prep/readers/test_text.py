import gzip
import lzma
import zipfile
from functools import partial

import pytest

from data_prep.readers.text import TextReader
from galen.errors import DataError
from tests.data_prep.material import read_raw

read = partial(read_raw, TextReader)


def test_members_of_a_zip_archive(tmp_path):
    path = tmp_path / "French.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("French/sites/", b"")
        archive.writestr("French/sites/1.txt", "Âge <5 ans et [Na+].\n".encode())
        archive.writestr("French/sites/2.txt", "Fièvre".encode("latin-1"))
        archive.writestr("French/sites/3.txt", b" \n")
        archive.writestr("French/sites/4.txt", b"x" * 2000)
        archive.writestr("French/sites/5.json", b"{}")
        archive.writestr("__MACOSX/French/sites/._1.txt", b"\0")
    (document,), bad, stats = read(path, max_record_bytes=1024, language="fr")
    assert document.text == "Âge <5 ans et [Na+]."
    assert document.id.startswith("French/sites/1.txt@French.zip:")
    assert document.metadata["language"] == ["fre"]
    assert [(record.position, record.reason) for record in bad] == [
        ("member French/sites/2.txt", "not UTF-8"),
        ("member French/sites/4.txt", "too long"),
    ]
    assert stats == {
        "total": 4,
        "dropped_no text": 1,
        "dropped_quarantined, not UTF-8": 1,
        "dropped_quarantined, too long": 1,
        "warning_members of archives with the ending .json, which are not read": 1,
    }
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"French\.zip is not a complete ZIP archive"):
        read(path)


def test_every_member_is_counted(tmp_path):
    path = tmp_path / "A.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.txt", "b.txt.gz", "C.TXT", "D.TXT.XZ", "cut.txt.gz", "inner.zip", "x.png"):
            data = name.encode()
            if "gz" in name:
                data = gzip.compress(data)[: 10 if "cut" in name else None]
            archive.writestr(name, lzma.compress(data) if "XZ" in name else data)
    documents, [bad], stats = read(path)
    names = ["a.txt", "b.txt.gz", "C.TXT", "D.TXT.XZ"]
    assert [document.text for document in documents] == names
    assert (bad.position, bad.reason) == ("member cut.txt.gz", "damaged")
    assert stats == {
        "total": 5,
        "dropped_quarantined, damaged": 1,
        "warning_archives inside archives, which are not read: unpack them": 1,
        "warning_members of archives with the ending .png, which are not read": 1,
    }


def test_a_single_file(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffÉtude.\n\nFin.\n".encode())
    (document,), _, _ = read(tmp_path / "a.txt")
    assert document.text == "Étude.\n\nFin."
    assert document.id.startswith("a.txt:")
