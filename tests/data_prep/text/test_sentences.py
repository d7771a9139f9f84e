import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import describe, merge_indexed
from data_prep.text.sentences import SentenceSplitter
from data_prep.tokenization import worker_pool, write_tokens
from tests.data_prep.material import run, sequences, write_lines

CHARACTERS = list("aDÉж肺.?!。！ \n\r\t\u3000\u2028\u00a0\u200b()\"'»«1-•\x85🙂")
AWKWARD = st.sampled_from([*CHARACTERS, "e.g. ", "Dr. ", "J. ", "\r\n", "3.5 "])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(AWKWARD, max_size=40).map("".join),
    st.sampled_from(["en", "fr", "es", "ru", "zh", "ja", "de", "xx"]),
)
def test_nothing_is_lost(text, language):
    split_sentences = SentenceSplitter(language, keep_newlines=True).split(text)
    assert "".join(split_sentences) == text
    assert all(not sentence.isspace() for sentence in split_sentences) or len(split_sentences) == 1
    bare = SentenceSplitter(language).split(text)
    assert all(sentence == sentence.strip() and sentence for sentence in bare)
    assert "".join("".join(bare).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        (
            "en",
            [
                "Title of it.\n\n",
                "The dose was 3.5 mg/kg (e.g. in mice, Fig. 2). ",
                "Dr. Smith et al. saw no effect (p < 0.05).",
            ],
        ),
        ("fr", ["Le docteur a prescrit 2,5 mg par jour. ", "Le patient va bien."]),
        ("zh", ["患者接受了治疗。", "效果良好！"]),
        ("ja", ["肺炎の治療を行った。", "結果は良好であった。"]),
        ("ru", ["Больной получал 2,5 мг препарата. ", "Состояние улучшилось."]),
        ("es", ["El paciente recibió 3,5 mg del fármaco. ", "¿Mejoró? ", "Sí."]),
    ],
)
def test_where_sentences_end(language, sentences):
    assert SentenceSplitter(language, keep_newlines=True).split("".join(sentences)) == sentences


TEXTS = [
    "The patient was treated. The drug helped.\n\nIt was told here!",
    "",
    " \n ",
    "One. Two.",
    "no end",
]
BARE = [
    ["The patient was treated.", "The drug helped.", "It was told here!"],
    [],
    [],
    ["One.", "Two."],
    ["no end"],
]
KEPT = [
    ["The patient was treated. ", "The drug helped.\n\n", "It was told here!"],
    [],
    [" \n "],
    ["One. ", "Two."],
    ["no end"],
]


@pytest.mark.parametrize(("options", "wanted"), [([], BARE), (["--keep-newlines"], KEPT)])
def test_same_bytes_as_megatrons_writer(tmp_path, tokenizer_folder, options, wanted):
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    reference.no_truncation()
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    run(tokenizer_folder, [source], tmp_path / "p", "--append-eod", "--split-sentences", *options)
    builder = IndexedDatasetBuilder(str(tmp_path / "m.bin"), dtype=np.uint16)
    for sentences in wanted:
        ids = [reference.encode(sentence, add_special_tokens=False).ids for sentence in sentences]
        if ids:
            ids[-1].append(1)
        builder.add_document(
            [number for part in ids for number in part], [len(part) for part in ids]
        )
    builder.finalize(str(tmp_path / "m.idx"))
    for ending in ("bin", "idx"):
        assert (tmp_path / f"p_text_sentence.{ending}").read_bytes() == (
            tmp_path / f"m.{ending}"
        ).read_bytes()


@pytest.mark.slow
def test_keys_shards_restart_and_statistics(tmp_path, tokenizer_folder, monkeypatch, capsys):
    records = [
        {"text": f"The patient {n}. Drug {n * n} was told. " * (n % 4), "title": f"Title {n}. End."}
        for n in range(300)
    ]
    source = write_lines(tmp_path / "a.jsonl", records)
    options = ["--split-sentences", "--json-keys", "text", "title", "--append-eod"]
    run(tokenizer_folder, [source], tmp_path / "one", *options, "--stats", "--workers", "2")
    run(tokenizer_folder, [source], tmp_path / "s", *options, "--shards", "2")
    merge_indexed.main(
        ["--input", str(tmp_path / "s_*-of-00002"), "--output-prefix", str(tmp_path / "m")]
    )
    with monkeypatch.context() as patch:
        patch.setattr(worker_pool, "BLOCK_BYTES", 2000)
        patch.setattr(write_tokens, "SAVE_SECONDS", 0.0)
        calls, append = [], write_tokens.append_result
        patch.setattr(
            write_tokens,
            "append_result",
            lambda *given: append(*given) if calls.append(1) or len(calls) < 5 else 1 / 0,
        )
        with pytest.raises(ZeroDivisionError):
            run(tokenizer_folder, [source], tmp_path / "r", *options)
    run(tokenizer_folder, [source], tmp_path / "r", *options)
    for key in ("text", "title"):
        for name in ("m", "r"):
            for ending in ("bin", "idx"):
                files = [tmp_path / f"{prefix}_{key}_sentence.{ending}" for prefix in (name, "one")]
                assert files[0].read_bytes() == files[1].read_bytes()
    starts = sequences(tmp_path / "one_text_sentence")[1]
    assert starts == [0, *np.cumsum([2 * (n % 4) for n in range(300)]).tolist()]
    counts = json.loads((tmp_path / "one_manifest.json").read_text())["counts"]["outputs"]
    assert (
        counts["text"]["documents"],
        counts["text"]["sequences"],
        counts["title"]["sequences"],
    ) == (300, starts[-1], 600)
    assert "one_title_sentence" in (tmp_path / "one_stats.html").read_text(encoding="utf-8")
    capsys.readouterr()
    describe.main([str(tmp_path / "m_title_sentence"), "--documents", "7"])
    assert capsys.readouterr().out.splitlines()[-2:] == ["Title 7.", "End.<eos>"]
    assert describe.main([str(tmp_path / "m_text_sentence"), "--check"]) == 0
