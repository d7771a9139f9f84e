"""Conversations have the same loss in megatron_ext and in finetune/, on the answers alone.

Batch and weights are the same.
"""

import json
import shutil

import numpy
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.data import chat, sample
from finetune.data.batch import collate, loss_sum
from finetune.data.record import Conversation
from finetune.data.sample import IGNORE_INDEX, Item
from galen.errors import DataError
from tests.conftest import TEXTS, import_model, run
from tests.megatron_ext.conftest import log

LENGTH = 96


@pytest.fixture(scope="module")
def model(make_llama):
    """A tiny Llama with the chat tokens in its vocabulary.

    As for SmolLM2 and Qwen, the token that ends a message is its end of text.
    """
    folder = make_llama(vocab_size=302, tie_word_embeddings=False, num_hidden_layers=2)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    return folder


@pytest.fixture(scope="module")
def megatron(model, tmp_path_factory):
    """The same as a Megatron checkpoint."""
    return import_model(model, tmp_path_factory.mktemp("chats") / "checkpoint")


@pytest.fixture(scope="module")
def talks():
    """Conversations of one or two answers, short enough for a sequence."""
    made = []
    for number in range(8):
        messages = [
            {"role": "question", "content": f"{TEXTS[number % 4][:20]} {number}?"},
            {"role": "answer", "content": TEXTS[number % 4][:9]},
        ]
        made.append(
            messages
            + (
                [{"role": "question", "content": "And?"}, {"role": "answer", "content": "No."}]
                if number % 2
                else []
            )
        )
    return made


@pytest.fixture(scope="module")
def chats(model, talks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conversations")
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"messages": messages}) + "\n" for messages in talks)
    )
    options = [
        "--input",
        folder / "a.jsonl",
        "--output-prefix",
        folder / "p",
        "--tokenizer-model",
        model,
    ]
    run("data_prep/preprocess.py", *options, "--instruction", "--append-eod")
    return folder / "p_text_document"


@pytest.fixture(scope="module")
def samples(model, talks):
    """The same conversations as finetune/ reads them."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    chat.install(tokenizer, chat.read_template("meditron"))
    names = {"question": "user", "answer": "assistant"}
    items = [
        Item(
            Conversation(str(n), tuple({**part, "role": names[part["role"]]} for part in talk)), ""
        )
        for n, talk in enumerate(talks)
    ]
    made, cut = sample.encode(items, tokenizer, LENGTH)
    assert cut == 0
    return made


def test_both_paths_learn_the_same_tokens(model, chats, samples):
    from megatron_ext.data.sft import Conversations

    conversations = Conversations(str(chats), model / "tokenizer.json", LENGTH)
    for index, made in enumerate(samples):
        tokens, mask = conversations.tokens(index), conversations.loss_mask(index)
        # the end-of-document token exists, and is not in the loss
        assert tokens.tolist() == [*made.tokens, 301]
        assert mask.tolist() == [*(label != IGNORE_INDEX for label in made.labels), False]


@pytest.mark.parametrize("packed", [False, True])
def test_each_conversation_comes_once_a_pass_and_labels_are_the_next_tokens(model, chats, packed):
    from megatron_ext.data.sft import Conversations, InstructionSamples

    conversations = Conversations(str(chats), model / "tokenizer.json", LENGTH)
    dataset = InstructionSamples(conversations, 8, LENGTH, packed, 1, seed=1)
    seen = [index for row in dataset._rows for index in row]
    assert sorted(seen[:8]) == list(range(8)) and len(dataset) == 8
    assert packed == any(len(row) > 1 for row in dataset._rows)
    for row in dataset:
        assert torch.equal(row["labels"][:-1], row["tokens"][1:]) and row["loss_mask"][-1] == 0
    tokens = sum(int(row["loss_mask"].sum()) for row in dataset)
    assert packed or tokens == sum(int(conversations.loss_mask(index).sum()) for index in range(8))


@pytest.fixture(scope="module")
def learn(pretrain_forked, megatron, chats):
    """Learn the conversations for two steps over some processes; return the run folder."""

    def learn(processes, *overrides):
        files = [
            f"model.checkpoint={megatron}",
            f"data.train=[{chats}]",
            f"data.validation=[{chats}]",
            "data.instruction=true",
        ]
        steps = [
            "training.train_iters=2",
            "training.eval_interval=2",
            "training.eval_iters=1",
            "optimizer.lr_warmup_iters=0",
        ]
        return pretrain_forked(processes, *files, *steps, f"data.seq_length={LENGTH}", *overrides)

    return learn


@pytest.fixture(scope="module")
def alone(learn):
    """A run of one process, a conversation in a sequence."""
    return learn(1)


def expected_loss(model, chats, samples, packed, count=8, multiple=1):
    """Return Hugging Face's mean loss of all answer tokens in a step, and their number.

    When packed, some samples occur twice to fill it.
    """
    from megatron_ext.data.sft import Conversations, InstructionSamples

    conversations = Conversations(str(chats), model / "tokenizer.json", LENGTH)
    dataset = InstructionSamples(conversations, count, LENGTH, packed, multiple, seed=1234)
    rows = dataset._rows
    batch = collate([samples[index] for row in rows for index in row])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(**batch).logits
    tokens = int((labels != IGNORE_INDEX).sum())
    return loss_sum(logits, labels).item() / tokens, tokens


@pytest.mark.multiprocess
@pytest.mark.parametrize("context", [None, 1, 2], ids=["unpacked", "packed", "packed CP2"])
def test_both_paths_have_the_same_loss(learn, alone, model, chats, samples, context):
    """Eight conversations in a step, in sequences of their own or packed.

    The loss is the mean over all answer tokens, as in finetune/.
    """
    packed = context is not None
    multiple = 4 if context == 2 else 1
    expected, tokens = expected_loss(model, chats, samples, packed, multiple=multiple)
    output = alone
    if packed:
        layout = f"parallel.context_parallel_size={context}"
        output = learn(context, "data.reset_attention_mask=true", layout)
    first = log(output, "train")[0]
    assert first["loss"] == pytest.approx(expected, rel=1e-6) and first["tokens"] == tokens
    before = log(output, "validation")[0]
    # which reads each conversation once
    expected, tokens = expected_loss(model, chats, samples, packed, None, multiple)
    assert before["loss"] == pytest.approx(expected, rel=1e-6) and before["tokens"] == tokens


LAYOUTS = {
    "tensor": ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"],
    "pipeline": ["parallel.pipeline_model_parallel_size=2"],
    "context": ["parallel.context_parallel_size=2"],
    "data": [],
}


@pytest.mark.multiprocess
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_have_the_losses_of_one(learn, alone, layout):
    """Answers of uneven length are spread unevenly over ranks.

    Yet each token has the same weight, before and after a step.
    """
    output = learn(2, *LAYOUTS[layout])
    for kind, count in (("train", 2), ("validation", 2)):
        one, two = log(alone, kind), log(output, kind)
        assert len(one) == len(two) == count
        for expected, found in zip(one, two, strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
            assert found.get("grad_norm", 0) == pytest.approx(
                expected.get("grad_norm", 0), rel=1e-5
            )
            assert found["tokens"] == expected["tokens"]


def test_files_of_another_kind_are_refused(model, chats, tmp_path):
    from megatron_ext.data.sft import Conversations

    with pytest.raises(DataError, match="does not end with _text_document"):
        Conversations(str(tmp_path / "x"), model / "tokenizer.json", LENGTH)
    with pytest.raises(
        DataError, match=r"no conversation has an answer within data\.seq_length = 4 tokens"
    ):
        Conversations(str(chats), model / "tokenizer.json", 4)
    for path in chats.parent.glob("p_*"):
        shutil.copy(path, tmp_path / path.name)
    manifest = json.loads((tmp_path / "p_manifest.json").read_text())
    manifest["config"]["message"] = "<|im_start|>[{role}]\n{content}<|im_end|>\n"
    (tmp_path / "p_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="the start of answers is not recognized"):
        Conversations(str(tmp_path / "p_text_document"), model / "tokenizer.json", LENGTH)
    assert numpy.all(Conversations(str(chats), model / "tokenizer.json", LENGTH).sizes < LENGTH)
