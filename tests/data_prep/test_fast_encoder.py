import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from data_prep.fast_encoder import choose_engine
from data_prep.text_tokenizer import load_tokenizer, read_special_tokens
from galen.errors import DataError
from tests.data_prep.material import run, sequences, write_lines

MEDITRON = Path(__file__).parents[2] / "examples" / "special_tokens" / "meditron.txt"
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

    (folder / "corpus.txt").write_text("\n".join(["the patient was treated with the drug", "results of the treatment are told here"] * 20))
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
    return train(tmp_path_factory.mktemp("model"), "a", normalization_rule_name="identity", remove_extra_whitespaces=False)


@pytest.mark.parametrize("engine", ["words", "gigatoken", "reference"])
def test_sentencepiece_with_added_tokens(tmp_path, model, engine):
    import sentencepiece

    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    marks = ["--prepend-bos", "--append-eod", "--eod-token", "<EOD>"]
    run(model, [source], tmp_path / "p", "--engine", engine, "--add-special-tokens", str(MEDITRON), *marks)
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
    assert manifest["engine"] == engine
    assert manifest["tokenizer"]["added"] == added
    assert manifest["tokenizer"]["vocab_size"] == 347


def test_words_are_not_remembered_where_that_changes_ids(tmp_path):
    normalising = load_tokenizer(train(tmp_path, "b", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True))
    engine, why = choose_engine(normalising, [], "words")
    assert engine.name == "reference"
    assert "words gives other ids" in why


@pytest.mark.parametrize("engine", ["gigatoken", "reference"])
def test_hugging_face_with_added_tokens(tmp_path, tokenizer_folder, engine):
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    run(tokenizer_folder, [source], tmp_path / "p", "--engine", engine, "--add-special-tokens", str(MEDITRON), "--append-eod")
    reference = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    reference.no_truncation()
    before = reference.get_vocab_size()
    reference.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in read_special_tokens(MEDITRON)])
    assert reference.token_to_id("<CLS>") == before
    expected = [[*reference.encode(text, add_special_tokens=False).ids, 1] for text in TEXTS]
    assert sequences(tmp_path / "p_text_document")[0] == expected
    assert json.loads((tmp_path / "p_manifest.json").read_text())["engine"] == engine


def test_a_token_that_stands_twice(tmp_path, tokenizer_folder):
    (tmp_path / "tokens.txt").write_text("<A>\n<B>\n<A>\n")
    with pytest.raises(DataError, match="names twice: <A>"):
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
    run(model, [source], tmp_path / "p", "--instruction", "--add-special-tokens", str(MEDITRON.with_name("meditron_chat.txt")))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    parts = [[347, *processor.encode(f"{one['role']}\n{one['content']}"), 348, *processor.encode("\n")] for one in talk]
    assert sequences(tmp_path / "p_text_document")[0] == [parts[0] + parts[1]]
    assert sequences(tmp_path / "p_role_document")[0] == [[1] * len(parts[0]) + [2] * len(parts[1])]


def test_size_of_a_vocabulary_with_gaps(tmp_path):
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 7}, "merges": ["a b"]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    assert load_tokenizer(tmp_path).vocab_size == 8
