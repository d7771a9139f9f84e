import json
import os
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from data_prep.tokenization.encoders import choose_encoder
from data_prep.tokenization.tokenizer import load_tokenizer, read_special_tokens
from galen.errors import DataError
from tests.data_prep.material import run, sequences, write_lines

MEDITRON = Path(__file__).parents[3] / "examples" / "special_tokens" / "meditron.txt"
TEXTS = [
    "the patient<CLS> was treated",
    "<EOD>",
    "a  drug & the results ≥ 3 肺炎",
    "x <SEP><MASK> the end\n",
    "\t results  told here ",
    "<EO D> CLS>",
]


def train(folder, name, **options):
    """A small SentencePiece BPE model with bytes for what it does not know."""
    import sentencepiece

    (folder / "corpus.txt").write_text(
        "\n".join(
            ["the patient was treated with the drug", "results of the treatment are told here"] * 20
        )
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / name),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
        **options,
    )
    return folder / f"{name}.model"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """As Llama's and Mistral's models: no normalisation, white space stays."""
    return train(
        tmp_path_factory.mktemp("model"),
        "a",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )


@pytest.mark.parametrize("encoder", ["cached_bpe", "gigatoken", "reference"])
def test_sentencepiece_with_added_tokens(tmp_path, model, encoder):
    import sentencepiece

    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    marks = ["--prepend-bos", "--append-eod", "--eod-token", "<EOD>"]
    run(
        model,
        [source],
        tmp_path / "p",
        "--encoder",
        encoder,
        "--add-special-tokens",
        str(MEDITRON),
        *marks,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    added = {token: 330 + n for n, token in enumerate(read_special_tokens(MEDITRON))}

    def encode(text):
        places = [(text.index(token), token) for token in added if token in text]
        if not places:
            return processor.encode(text)
        at, token = min(places)
        return [*processor.encode(text[:at]), added[token], *encode(text[at + len(token) :])]

    expected = [[processor.bos_id(), *encode(text), added["<EOD>"]] for text in TEXTS]
    assert sequences(tmp_path / "p_text_document")[0] == expected
    manifest = json.loads((tmp_path / "p_manifest.json").read_text())
    assert manifest["encoder"] == encoder
    assert manifest["tokenizer"]["added"] == added
    assert manifest["tokenizer"]["vocab_size"] == 347


def test_words_are_not_cached_where_that_changes_ids(tmp_path):
    normalising = load_tokenizer(
        train(tmp_path, "b", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True)
    )
    encoder, why = choose_encoder(normalising, [], "cached_bpe")
    assert encoder.name == "reference"
    assert "cached_bpe gives different ids" in why


@pytest.mark.parametrize("encoder", ["gigatoken", "reference"])
def test_hugging_face_with_added_tokens(tmp_path, tokenizer_folder, encoder):
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    run(
        tokenizer_folder,
        [source],
        tmp_path / "p",
        "--encoder",
        encoder,
        "--add-special-tokens",
        str(MEDITRON),
        "--append-eod",
    )
    reference = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    reference.no_truncation()
    before = reference.get_vocab_size()
    reference.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token in read_special_tokens(MEDITRON)
        ]
    )
    assert reference.token_to_id("<CLS>") == before
    expected = [[*reference.encode(text, add_special_tokens=False).ids, 1] for text in TEXTS]
    assert sequences(tmp_path / "p_text_document")[0] == expected
    assert json.loads((tmp_path / "p_manifest.json").read_text())["encoder"] == encoder


def test_a_token_that_stands_twice(tmp_path, tokenizer_folder):
    (tmp_path / "tokens.txt").write_text("<A>\n<B>\n<A>\n")
    with pytest.raises(DataError, match="repeated tokens: <A>"):
        run(
            tokenizer_folder,
            [write_lines(tmp_path / "a.jsonl", [{"text": "a"}])],
            tmp_path / "p",
            "--add-special-tokens",
            str(tmp_path / "tokens.txt"),
        )


def test_a_conversation_with_the_tokens_around_each_message(tmp_path, model):
    import sentencepiece

    talk = [{"role": "question", "content": "the drug"}, {"role": "answer", "content": "results"}]
    source = write_lines(tmp_path / "a.jsonl", [{"messages": talk}])
    run(
        model,
        [source],
        tmp_path / "p",
        "--instruction",
        "--add-special-tokens",
        str(MEDITRON.with_name("meditron_chat.txt")),
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    parts = [
        [347, *processor.encode(f"{one['role']}\n{one['content']}"), 348, *processor.encode("\n")]
        for one in talk
    ]
    assert sequences(tmp_path / "p_text_document")[0] == [parts[0] + parts[1]]
    assert sequences(tmp_path / "p_role_document")[0] == [[1] * len(parts[0]) + [2] * len(parts[1])]


def test_size_of_a_vocabulary_with_gaps(tmp_path):
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 7}, "merges": ["a b"]}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    )
    assert load_tokenizer(tmp_path).vocab_size == 8


NUMERALS = [
    "a  5 b",
    "12,345.67  8",
    "m² x10⁻³ ½½ ¼",
    "Ⅻ 肺炎3日",
    "٣٤ 5",
    "5's 5 's",
    "3\n\n 4\t5",
    "a\u037850 \U0001ccf0",
    "½",
    "é7é",
    "<|end|>7<|end|>",
]


@pytest.fixture(scope="module", params=["all bytes", "bytes of its text"])
def isolating(request, tmp_path_factory):
    """A byte-level tokenizer that makes each digit a token, as SmolLM2's.

    The real one lacks bytes too.
    """
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    steps = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.pre_tokenizer, tokenizer.decoder = (
        pre_tokenizers.Sequence(steps),
        decoders.ByteLevel(),
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if request.param == "all bytes" else []
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(
        [*NUMERALS, "0123456789", "the  patient was treated with 5 mg/m² of the drug é 肺炎"] * 9,
        trainer,
    )
    path = tmp_path_factory.mktemp("isolating") / "tokenizer.json"
    tokenizer.save(str(path))
    return load_tokenizer(path)


def assert_same_ids(tokenizer, texts):
    encoder, why = choose_encoder(tokenizer, [])
    assert (encoder.name, why) == ("gigatoken", None)
    for text, ids, wanted in zip(
        texts, encoder.encode(texts), tokenizer.encode(texts), strict=True
    ):
        assert ids.tolist() == wanted, repr(text)


def test_digits_by_themselves(isolating):
    draw = random.Random(5)
    pieces = [
        *"ab  cdE0123456789.,'\n\t",
        "'s",
        "²",
        "½",
        "Ⅻ",
        "٣",
        "α",
        "é",
        "肺",
        "🙂",
        "\u200b",
        "<|end|>",
        "\u0378",
        "\U0001ccf0",
    ]
    mixed = ["".join(draw.choices(pieces, k=draw.randint(0, 40))) for _ in range(3000)]
    assert_same_ids(isolating, [*NUMERALS, *mixed])


def test_digits_by_themselves_in_all_of_unicode(isolating):
    """Each character stands between letters, blanks and digits once."""
    known = [
        chr(number)
        for number in range(0x110000)
        if not 0xD800 <= number < 0xE000 and number % 7 == 0
    ]
    assert_same_ids(
        isolating,
        [
            "".join(f"{char}{'a 1'[n % 3]}" for n, char in enumerate(known[at : at + 400]))
            for at in range(0, len(known), 400)
        ],
    )


def test_the_demos_model_takes_the_fast_way():
    folder = (
        Path(os.environ.get("GALEN_CACHE", Path.home() / ".cache" / "galen"))
        / "SmolLM2-135M-Instruct"
    )
    if not folder.is_dir():
        pytest.skip("`python examples/demo/inputs.py --only model` brings the demo's model")
    text = "\n".join(
        path.read_text() for path in sorted((Path(__file__).parents[3] / "docs").glob("*.md"))
    )
    assert_same_ids(
        load_tokenizer(folder),
        [*NUMERALS, *(text[at : at + 500] for at in range(0, len(text), 500))],
    )


@pytest.mark.parametrize(
    ("eos", "base", "expected"),
    [
        (
            "<|im_end|>",
            "<|endoftext|>",
            (
                "base models of this family end a document with '<|endoftext|>': --eod-token"
                " '<|endoftext|>'"
            ),
        ),
        ("<|eot_id|>", "<|end_of_text|>", "end a document with '<|end_of_text|>'"),
        ("<end_of_turn>", "<eos>", "end a document with '<eos>'"),
        ("<|im_end|>", "", "choose another one with --eod-token"),
        ("<|endoftext|>", "<|im_end|>", None),
        ("</s>", "", None),
    ],
)
def test_the_end_of_a_turn_is_not_used_silently(tmp_path, caplog, eos, base, expected):
    from tokenizers import models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([token for token in (eos, base) if token])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    source = write_lines(tmp_path / "a.jsonl", [{"text": "the"}])
    run(tmp_path, [source], tmp_path / "p", "--append-eod", "--encoder", "reference")
    assert sequences(tmp_path / "p_text_document")[0] == [[0, 2]], "the token is the same as ever"
    if expected is None:
        assert not caplog.messages
    else:
        [warning] = [text for text in caplog.messages if "--append-eod" in text]
        assert f"--append-eod uses {eos!r}" in warning
        assert expected in warning
    if base:
        caplog.clear()
        run(
            tmp_path,
            [source],
            tmp_path / "q",
            "--append-eod",
            "--encoder",
            "reference",
            "--eod-token",
            base,
        )
        assert sequences(tmp_path / "q_text_document")[0] == [[0, 3]]
        assert not caplog.messages
