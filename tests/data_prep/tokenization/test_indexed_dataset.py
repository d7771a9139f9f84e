import numpy as np
import pytest

from data_prep import merge_indexed
from data_prep.tokenization import indexed_dataset
from data_prep.tokenization.indexed_dataset import (
    IndexedFile,
    id_type,
    write_document_ends,
    write_header,
    write_offsets,
)
from galen.errors import DataError


def write_file(prefix, documents, ids):
    """A token file whose documents are lists of sequence lengths.

    `ids` maps places to ids, all others are 0 (a sparse .bin).
    """
    dtype = np.dtype(np.uint16)
    lengths = np.array([length for document in documents for length in document], dtype="<i4")
    with prefix.with_suffix(".idx").open("wb") as file:
        write_header(file, dtype, len(lengths), len(documents))
        lengths.tofile(file)
        write_offsets(file, iter([lengths] if len(lengths) else []), dtype.itemsize)
        write_document_ends(
            file, iter([np.array([len(document) for document in documents], dtype="<i4")])
        )
    with prefix.with_suffix(".bin").open("wb") as file:
        file.truncate(int(lengths.sum()) * dtype.itemsize)
        for place, identifier in ids.items():
            file.seek((place if place >= 0 else int(lengths.sum()) + place) * dtype.itemsize)
            file.write(np.array([identifier], dtype=dtype).tobytes())
    return str(prefix)


def test_large_vocabulary_takes_int32():
    assert id_type(65499) == np.uint16
    assert id_type(65500) == np.int32


def test_reads_in_pieces_as_if_at_once(tmp_path, monkeypatch):
    documents = [[n % 7 + 1] * (n % 4) for n in range(2000)]
    file = IndexedFile(write_file(tmp_path / "a", documents, {}))
    monkeypatch.setattr(indexed_dataset, "CHUNK", 48)
    assert np.concatenate(list(file.read_lengths())).tolist() == [
        length for document in documents for length in document
    ]
    assert np.concatenate(list(file.read_counts())).tolist() == [
        len(document) for document in documents
    ]
    assert np.concatenate(list(file.document_lengths())).tolist() == [
        sum(document) for document in documents
    ]
    file.check()


@pytest.mark.parametrize(
    ("place", "number", "message"),
    [
        (lambda file: 34, 0, "sequence 0 has a length below 1"),
        (
            lambda file: 34 + 4 * file.sequences + 8 * 2,
            3,
            "sequence 2 does not begin where the one before ends",
        ),
        (lambda file: 34 + 12 * file.sequences + 8 * 3, 1, "document 2 ends before it begins"),
        (lambda file: 34 + 12 * file.sequences, 1, "do not cover"),
        (lambda file: 34 + 12 * file.sequences + 8 * file.documents, 99, "do not cover"),
    ],
)
def test_damage_is_found(tmp_path, place, number, message):
    file = IndexedFile(write_file(tmp_path / "a", [[2], [3, 4], [5], [1]], {}))
    size = 4 if place(file) == 34 else 8
    data = bytearray(file.idx.read_bytes())
    data[place(file) : place(file) + size] = number.to_bytes(size, "little")
    file.idx.write_bytes(data)
    with pytest.raises(DataError, match=message):
        IndexedFile(tmp_path / "a").check()


def test_a_prefix_without_its_key_is_helped(tmp_path):
    write_file(tmp_path / "train_text_document", [[2]], {})
    with pytest.raises(
        DataError,
        match=(
            r"cannot read \S+train\.idx: No such file or directory; did you mean"
            r" \S+train_text_document\?"
        ),
    ):
        IndexedFile(tmp_path / "train")


@pytest.mark.slow
def test_merge_beyond_two_gigabytes(tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    large = 600_000_000  # ids of two bytes: each file is below 2^31 bytes, both together are not
    first = write_file(tmp_path / "a", [[3], [large], [4]], {0: 1, 3: 2, -5: 3, -1: 4})
    second = write_file(tmp_path / "b", [[], [large, 5]], {0: 5, -6: 6, -1: 7})
    merge_indexed.main(["--input", first, second, "--output-prefix", str(tmp_path / "m")])
    assert (tmp_path / "m.bin").stat().st_size == 2 * (2 * large + 12) > 2**31
    dataset = IndexedDataset(str(tmp_path / "m"))
    assert dataset.document_indices.tolist() == [0, 1, 2, 3, 3, 5]
    assert dataset.sequence_lengths.tolist() == [3, large, 4, large, 5]
    assert dataset[0].tolist() == [1, 0, 0]
    assert [dataset.get(1, place, 2).tolist() for place in (0, large - 2)] == [[2, 0], [0, 3]]
    assert dataset[2].tolist() == [0, 0, 0, 4]
    assert [dataset.get(3, place, 2).tolist() for place in (0, large - 2)] == [[5, 0], [0, 6]]
    assert dataset[4].tolist() == [0, 0, 0, 0, 7]
    IndexedFile(tmp_path / "m").check()
    for path in tmp_path.glob("*.bin"):
        path.unlink()
