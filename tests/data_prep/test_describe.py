import re
from collections import Counter

import pytest

from data_prep import describe
from galen.errors import UsageError
from tests.data_prep.material import run, sequences, write_lines

TEXTS = ["the patient was treated", "a drug & the results ≥ 3 肺炎", "x <b>"]


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


def test_roles_are_shown_as_numbers(tmp_path, tokenizer_folder, capsys):
    source = write_lines(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": "x"}, {"role": "gpt", "content": "the"}]}])
    run(tokenizer_folder, [source], tmp_path / "p", "--instruction", "--message", "{content}")
    capsys.readouterr()
    describe.main([str(tmp_path / "p_role_document")])
    roles = sequences(tmp_path / "p_role_document")[0][0]
    assert capsys.readouterr().out.splitlines()[-1] == " ".join(map(str, roles))


def test_page_of_statistics(tmp_path, tokenizer_folder):
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    run(tokenizer_folder, [source], tmp_path / "p", "--append-eod", "--stats")
    page = (tmp_path / "p_stats.html").read_text(encoding="utf-8")
    counts = Counter(token for ids in sequences(tmp_path / "p_text_document")[0] for token in ids)
    rows = {int(number): int(times) for number, times in re.findall(r"<tr><td>(\d+)</td><td>.*?</td><td>(\d+)</td></tr>", page)}
    assert len(rows) == min(25, len(counts))
    assert rows == {number: counts[number] for number in rows}
    assert sorted(rows.values(), reverse=True) == [times for _, times in counts.most_common(25)]
    never, size = re.search(r"Never used: (\d+) of (\d+) ids", page).groups()
    assert int(size) - int(never) == len(counts)
    assert page.count("<svg") == 2
