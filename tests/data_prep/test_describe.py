import re
from collections import Counter

import numpy as np
import pytest

from data_prep import describe
from data_prep.tokenization.indexed_dataset import IndexedFileWriter
from galen.errors import UsageError
from tests.data_prep.material import run, sequences, write_lines

TEXTS = ["the patient was treated", "a drug & the results ≥ 3 肺炎", "x <b>"]


@pytest.mark.slow
def test_documents_as_text(tmp_path, tokenizer_folder, capsys):
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    run(tokenizer_folder, [source], tmp_path / "p", "--append-eod")
    capsys.readouterr()
    describe.main([str(tmp_path / "p_text_document"), "--documents", "1", "-1"])
    out = capsys.readouterr().out
    assert "3 documents, 3 sequences" in out
    assert [f"{text}<eos>" in out for text in TEXTS] == [False, True, True]
    assert "--- document 2:" in out
    with pytest.raises(UsageError, match="there are 3, from 0"):
        describe.main([str(tmp_path / "p_text_document"), "--documents", "3"])


@pytest.mark.slow
def test_roles_are_shown_as_numbers(tmp_path, tokenizer_folder, capsys):
    source = write_lines(
        tmp_path / "a.jsonl",
        [{"messages": [{"role": "user", "content": "x"}, {"role": "gpt", "content": "the"}]}],
    )
    run(tokenizer_folder, [source], tmp_path / "p", "--instruction", "--message", "{content}")
    capsys.readouterr()
    describe.main([str(tmp_path / "p_role_document")])
    roles = sequences(tmp_path / "p_role_document")[0][0]
    assert capsys.readouterr().out.splitlines()[-1] == " ".join(map(str, roles))


@pytest.mark.parametrize(
    ("dtype", "lengths", "counts", "expected"),
    [
        ("<i4", [2, 1, 3], [2, 1], ["are the same"]),
        (
            "<i4",
            [3, 3],
            [1, 1],
            [
                "sequences: 3 and 2",
                "the first difference is in document 0, the same tokens in other sequences",
            ],
        ),
        (
            "<u2",
            [2, 1, 3],
            [2, 1],
            ["type: int32 and uint16", "the first 2 documents are the same"],
        ),
        (
            "<i4",
            [2, 1],
            [2],
            ["tokens: 6 and 3", "the first 1 documents are the same; one file has more"],
        ),
    ],
)
def test_compare_names_the_difference(tmp_path, capsys, dtype, lengths, counts, expected):
    files = [("a", "<i4", [2, 1, 3], [2, 1]), ("b", dtype, lengths, counts)]
    for name, type_name, sizes, sequences_of in files:
        paths = [tmp_path / f"{name}.{ending}" for ending in ("bin", "lengths", "counts")]
        writer = IndexedFileWriter(*paths, dtype=np.dtype(type_name))
        writer.add(np.arange(sum(sizes)).astype(type_name), np.array(sizes), np.array(sequences_of))
        writer.close()
        writer.write_index(tmp_path / f"{name}.idx")
    assert describe.main([str(tmp_path / "a"), "--compare", str(tmp_path / "b")]) == (
        expected != ["are the same"]
    )
    actual = capsys.readouterr().out.splitlines()[-len(expected) :]
    assert all(line.endswith(end) for line, end in zip(actual, expected, strict=True))


ROW = r'<tr><td class="figure">(\d+)</td><td>.*?</td><td class="figure">(\d+)</td></tr>'


@pytest.mark.slow
def test_page_of_statistics(tmp_path, tokenizer_folder):
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    run(tokenizer_folder, [source], tmp_path / "p", "--append-eod", "--stats")
    page = (tmp_path / "p_stats.html").read_text(encoding="utf-8")
    counts = Counter(token for ids in sequences(tmp_path / "p_text_document")[0] for token in ids)
    rows = {int(number): int(times) for number, times in re.findall(ROW, page)}
    assert len(rows) == min(25, len(counts))
    assert rows == {number: counts[number] for number in rows}
    assert sorted(rows.values(), reverse=True) == [times for _, times in counts.most_common(25)]
    never, size = re.search(r"Never used: (\d+) of (\d+) ids", page).groups()
    assert int(size) - int(never) == len(counts)
    assert page.count("<svg") == 2
