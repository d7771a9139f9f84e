import pytest
from tokenizers import Tokenizer

from galen.errors import DataError, UsageError
from tests.data_prep.material import run, sequences, write_lines

TEXTS = [
    "the patient was treated with the drug and the results are told here",
    "x",
    "a drug & the results ≥ 3 肺炎 of it",
]


@pytest.fixture
def encode(tokenizer_folder):
    """The reference: the tokenizers library on one text at a time."""
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.no_truncation()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def test_windows_with_both_marks(tmp_path, tokenizer_folder, encode):
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    marks = ["--prepend-bos", "--bos-token", "<bos>", "--append-eod"]
    run(
        tokenizer_folder,
        [source],
        tmp_path / "p",
        *marks,
        "--window",
        "8",
        "--overlap",
        "3",
        "--workers",
        "2",
    )
    windows, starts = [], [0]
    for text in TEXTS:
        ids, at = [0, *encode(text), 1], 0
        while True:
            windows.append(ids[at : at + 8])
            if at + 8 >= len(ids):
                break
            at += 8 - 3
        starts.append(len(windows))
    assert len(windows) > len(TEXTS) + 3
    assert sequences(tmp_path / "p_text_document") == (windows, starts)


def test_each_key_has_a_file_of_its_own(tmp_path, tokenizer_folder, encode):
    records = [{"title": text[:9], "other": 3, "body": text} for text in TEXTS]
    source = write_lines(tmp_path / "a.jsonl", records)
    run(tokenizer_folder, [source], tmp_path / "p", "--json-keys", "body", "title", "--append-eod")
    for key in ("body", "title"):
        expected = [[*encode(record[key]), 1] for record in records]
        assert sequences(tmp_path / f"p_{key}_document") == (expected, [0, 1, 2, 3])


@pytest.mark.slow
def test_conversations_and_their_roles(tmp_path, tokenizer_folder, encode):
    talks = [
        [
            {"role": "system", "content": "help"},
            {"role": "user", "content": "the drug?"},
            {"role": "assistant", "content": "{role} a drug"},
        ],
        [
            {"role": "prompter", "content": "treated"},
            {"role": "gpt", "content": "the results"},
            {"role": "human", "content": "x"},
        ],
    ]
    source = write_lines(tmp_path / "a.jsonl", [{"messages": talk} for talk in talks])
    run(
        tokenizer_folder,
        [source],
        tmp_path / "p",
        "--instruction",
        "--message",
        "[{role}] {content}\n",
        "--append-eod",
    )
    parts = [
        [encode(f"[{message['role']}] {message['content']}\n") for message in talk]
        for talk in talks
    ]
    text = [[*(number for part in talk for number in part), 1] for talk in parts]
    numbers = [(0, 1, 2), (1, 2, 1)]
    roles = [
        [*(number for number, part in zip(each, talk, strict=True) for _ in part), each[-1]]
        for each, talk in zip(numbers, parts, strict=True)
    ]
    assert sequences(tmp_path / "p_text_document") == (text, [0, 1, 2])
    assert sequences(tmp_path / "p_role_document") == (roles, [0, 1, 2])

    nothing = write_lines(
        tmp_path / "c.jsonl",
        [{"messages": [{"role": "user", "content": text}]} for text in ("", "x")],
    )
    run(tokenizer_folder, [nothing], tmp_path / "n", "--instruction", "--message", "{content}")
    for output in ("text", "role"):
        assert list(map(len, sequences(tmp_path / f"n_{output}_document")[0])) == [1], (
            "as in plain text, no sequence without ids"
        )

    strange = write_lines(
        tmp_path / "b.jsonl", [{"messages": [{"role": "doctor", "content": "x"}]}]
    )
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: the role 'doctor'"):
        run(tokenizer_folder, [strange], tmp_path / "q", "--instruction")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", "3"], "--overlap needs --window"),
        (["--window", "4", "--overlap", "4"], "less than --window, 4"),
        (["--window", "4", "--instruction"], "cannot be combined"),
        (["--instruction", "--message", "{role}"], r"must contain \{content\}"),
        (["--json-keys", "text", "text"], "a key twice"),
        (["--split-sentences", "--window", "8"], "--window and --split-sentences"),
        (["--keep-newlines"], "needs --split-sentences"),
        (["--split-sentences", "--lang", "english"], "two or three letters"),
        (["--message", "{content}"], "--message needs --instruction"),
        (["--bos-token", "<bos>"], "--bos-token needs --prepend-bos"),
    ],
)
def test_options_that_do_not_fit(tmp_path, tokenizer_folder, options, message):
    with pytest.raises(UsageError, match=message):
        run(
            tokenizer_folder,
            [write_lines(tmp_path / "a.jsonl", [{"text": "a"}])],
            tmp_path / "p",
            *options,
        )
