"""Tokens added at import have the same ids in tokenizer, configuration and weights.

The export has no padding.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from checkpoints_convert import hf_to_megatron, megatron_to_hf
from checkpoints_convert.hf.vocabulary import read_tokens
from data_prep.tokenization.tokenizer import read_special_tokens
from galen.errors import DataError
from megatron_ext.checkpoint.torch_dist import TorchDist
from tests.conftest import ROOT

MEDITRON = ROOT / "examples" / "special_tokens" / "meditron.txt"
TOKENS = read_tokens(MEDITRON)


def convert(hf, folder, *options):
    hf_to_megatron.main(["--hf", str(hf), "--output", str(folder / "megatron"), *map(str, options)])
    megatron_to_hf.main(["--megatron", str(folder / "megatron"), "--output", str(folder / "back")])
    return folder / "back"


def test_the_meditron_tokens_are_in_its_order():
    assert TOKENS[:5] == ["<CLS>", "<SEP>", "<EOD>", "<MASK>", "<PAD>"]
    assert TOKENS[5:] == [
        f"[{slash}{name}]"
        for name in ("bib_ref", "fig_ref", "bib", "fig", "table", "formula")
        for slash in ("", "/")
    ]
    assert 32000 + len(TOKENS) == 32017


def test_the_tokenisation_stage_reads_the_same_tokens():
    for path in sorted(MEDITRON.parent.iterdir()):
        assert read_tokens(path) == read_special_tokens(path)


@pytest.mark.parametrize("name", ["llama-2", "llama-3.2", "internlm2"])
def test_tokens_get_ids_and_rows(tmp_path, make_model, name):
    hf = make_model(name)
    back = convert(
        hf, tmp_path, "--add-special-tokens", MEDITRON, "--tensor-model-parallel-size", 4
    )
    tokenizer = Tokenizer.from_file(str(back / "tokenizer.json"))
    assert [tokenizer.token_to_id(token) for token in TOKENS] == list(range(300, 317))
    assert tokenizer.encode("see [bib_ref]Title[/bib_ref].").tokens.count("[bib_ref]") == 1
    assert AutoTokenizer.from_pretrained(back).convert_tokens_to_ids(TOKENS) == list(
        range(300, 317)
    )
    old, new = load_file(hf / "model.safetensors"), load_file(back / "model.safetensors")
    for key in old:
        if (
            "tok_embeddings" in key
            or "embed_tokens" in key
            or key in ("lm_head.weight", "output.weight")
        ):
            assert new[key].shape == (317, 64)  # the 512 padded rows do not leak
            assert new[key][:300].equal(old[key])
            torch.testing.assert_close(new[key][300:], old[key].mean(0).expand(17, -1))
        else:
            assert new[key].equal(old[key])
    assert json.loads((back / "config.json").read_text())["vocab_size"] == 317
    padded = TorchDist(tmp_path / "megatron" / "iter_0000000").shape(
        "embedding.word_embeddings.weight", ()
    )
    assert padded == (512, 64)
    if name != "internlm2":
        assert (
            AutoModelForCausalLM.from_pretrained(back).get_input_embeddings().num_embeddings == 317
        )


def test_normal_rows_are_seeded(tmp_path, make_model):
    hf = make_model("llama-2")
    options = ["--add-special-tokens", MEDITRON, "--new-rows", "normal", "--seed"]
    first, again, other = (
        convert(hf, tmp_path / str(n), *options, seed) for n, seed in enumerate((1, 1, 2))
    )
    first, again, other = (
        load_file(folder / "model.safetensors")["lm_head.weight"][300:]
        for folder in (first, again, other)
    )
    assert first.equal(again)
    assert not first.equal(other)
    deviation = load_file(hf / "model.safetensors")["lm_head.weight"].std(0).mean().item()
    assert first.std(0).mean().item() == pytest.approx(deviation, rel=0.2)


def test_rows_that_the_model_has_to_spare_are_used(tmp_path, make_model):
    hf = make_model("qwen2", vocab_size=400)  # as Qwen2.5: 151,665 ids, 152,064 rows
    back = convert(hf, tmp_path, "--add-special-tokens", MEDITRON)
    old, new = (
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        for folder in (hf, back)
    )
    assert new.shape == (400, 64)
    assert new[:300].equal(old[:300])
    assert new[317:].equal(old[317:])
    torch.testing.assert_close(new[300:317], old[:300].mean(0).expand(17, -1))


def test_the_placeholder_of_images_needs_no_row(tmp_path, make_model):
    """The tokenizers of Gemma 3 1B and MedGemma 27B text have one id more than the model rows."""
    hf = tmp_path / "hf"
    shutil.copytree(make_model("gemma3"), hf)
    tokenizer = Tokenizer.from_file(str(hf / "tokenizer.json"))
    tokenizer.add_special_tokens(["<image_soft_token>"])
    tokenizer.save(str(hf / "tokenizer.json"))
    old = load_file(hf / "model.safetensors")["model.embed_tokens.weight"]
    plain = convert(hf, tmp_path / "plain")
    assert load_file(plain / "model.safetensors")["model.embed_tokens.weight"].equal(old)
    # with further tokens it gets a row, since theirs follow
    back = convert(hf, tmp_path / "extended", "--add-special-tokens", MEDITRON)
    new = load_file(back / "model.safetensors")["model.embed_tokens.weight"]
    extended = Tokenizer.from_file(str(back / "tokenizer.json"))
    assert [extended.token_to_id(token) for token in TOKENS] == list(range(301, 318))
    assert new[:300].equal(old)
    torch.testing.assert_close(new[300:], old.mean(0).expand(18, -1))


def tokens_file(tmp_path, text):
    (tmp_path / "tokens.txt").write_text(text)
    return tmp_path / "tokens.txt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no token"),
        ("<A>\n<A>\n", "'<A>' twice"),
        ("<A>\n<|endoftext|>\n", "'<|endoftext|>' already, as id 0"),
    ],
)
def test_mistakes_in_the_file(tmp_path, make_model, text, message):
    with pytest.raises(DataError) as error:
        convert(
            make_model("llama-2"), tmp_path, "--add-special-tokens", tokens_file(tmp_path, text)
        )
    assert message in str(error.value)
    assert not (tmp_path / "megatron").exists()


def test_a_checkpoint_with_fewer_rows_than_ids_names_the_command_to_run(tmp_path, make_model):
    hf = make_model("llama-2")
    back = convert(hf, tmp_path, "--add-special-tokens", MEDITRON)
    large = tmp_path / "large"
    shutil.copytree(hf, large)
    for path in (tmp_path / "megatron" / "hf", tmp_path / "megatron" / "iter_0000000"):
        name = "config.json" if path.name == "hf" else "architecture.json"
        content = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps(content | {"vocab_size": 400}))
    shutil.rmtree(back)
    with pytest.raises(DataError) as error:
        megatron_to_hf.main(
            ["--megatron", str(tmp_path / "megatron"), "--output", str(back), "--no-verify"]
        )
    assert "have 400 ids, the checkpoint 384 rows" in str(error.value)
    assert "--add-special-tokens" in str(error.value)


def test_a_sentencepiece_tokenizer_with_more_ids_than_rows_names_the_command_to_run(
    tmp_path, make_model
):
    import sentencepiece

    hf = tmp_path / "hf"
    shutil.copytree(make_model("llama-2"), hf)
    (hf / "tokenizer.json").unlink()
    text = [f"word{number % 7} other{number % 11}" for number in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_prefix=str(hf / "tokenizer"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    hf_to_megatron.main(["--hf", str(hf), "--output", str(tmp_path / "fits")])
    (hf / "added_tokens.json").write_text(json.dumps({"<pad>": 300}))
    with pytest.raises(
        DataError,
        match=(
            r"tokenizer\.model gives ids up to 300, but the model has 300 embedding"
            r" rows.*--add-special-tokens"
        ),
    ):
        hf_to_megatron.main(["--hf", str(hf), "--output", str(tmp_path / "megatron")])
