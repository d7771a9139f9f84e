"""With data.reset_attention_mask a token attends to its own document only, under every layout."""

import itertools
import json
import math
import shutil

import numpy
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, Olmo3Config

from tests.conftest import import_model, run
from tests.megatron_ext.conftest import build_datasets, log

TEXT = "zqxjkvw"
LAYOUTS = {
    "one process": (1, []),
    "TP2 with sequence parallelism": (
        2,
        ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"],
    ),
    "PP2": (2, ["parallel.pipeline_model_parallel_size=2"]),
}


@pytest.fixture(scope="module")
def same_document(tmp_path_factory, tiny_tokenizer):
    """Data of one document of 8 tokens, its end included, repeated; four in a sequence of 32."""
    folder = tmp_path_factory.mktemp("same")
    ids = Tokenizer.from_file(str(tiny_tokenizer / "tokenizer.json")).encode(TEXT).ids
    assert len(ids) == 7
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": TEXT}) + "\n" for _ in range(200)))
    run(
        "data_prep/preprocess.py",
        "--input",
        folder / "d.jsonl",
        "--output-prefix",
        folder / "d",
        "--tokenizer-model",
        tiny_tokenizer,
        "--append-eod",
    )
    return folder / "d_text_document", [*ids, 0]


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", LAYOUTS)
def test_packing_does_not_change_the_loss_of_a_document(
    pretrain_forked, untied_llama, same_document, name
):
    prefix, ids = same_document
    processes, overrides = LAYOUTS[name]
    read = [
        f"data.train=[{prefix}]",
        f"data.validation=[{prefix}]",
        "data.eod_mask_loss=true",
        "training.train_iters=1",
        "optimizer.lr_warmup_iters=0",
    ]
    output = pretrain_forked(processes, *read, "data.reset_attention_mask=true", *overrides)
    tokens = torch.tensor([ids])
    with torch.no_grad():  # Hugging Face's model, on the document alone
        document_loss = AutoModelForCausalLM.from_pretrained(untied_llama)(
            tokens, labels=tokens
        ).loss.item()
    assert log(output, "validation")[0]["loss"] == pytest.approx(document_loss, rel=1e-6)
    assert log(output, "train")[0]["loss"] == pytest.approx(document_loss, rel=1e-6)
    if name == "one process":
        across = pretrain_forked(1, *read)
        assert log(across, "validation")[0]["loss"] != pytest.approx(document_loss, rel=1e-3)


PADDED = [
    "data.reset_attention_mask=true",
    "training.train_iters=2",
    "optimizer.lr_warmup_iters=0",
    "training.save_interval=2",
]
PADDED_LAYOUTS = {
    "CP2": (2, ["parallel.context_parallel_size=2", f"parallel.cp_comm_type={4 * ['all_gather']}"]),
    "TP2 x CP2 with sequence parallelism": (
        4,
        [
            "parallel.tensor_model_parallel_size=2",
            "parallel.context_parallel_size=2",
            "parallel.sequence_parallel=true",
        ],
    ),
}


@pytest.fixture(scope="module")
def various(tmp_path_factory, tiny_tokenizer):
    """Data of documents of different lengths, some longer than a sequence of 32 tokens."""
    folder = tmp_path_factory.mktemp("various")
    random = numpy.random.default_rng(3)
    lengths = [*range(1, 40), 50, 70]
    texts = ["".join(random.choice(list("bcdfghjklmnpqrstvwxz"), length)) for length in lengths]
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = ["--input", folder / "d.jsonl", "--output-prefix", folder / "d", "--append-eod"]
    run("data_prep/preprocess.py", *arguments, "--tokenizer-model", tiny_tokenizer)
    return folder / "d_text_document"


def of_each_alone(folder, checkpoint, prefix, model, *options):
    """Return Hugging Face's loss, gradient norm and tokens of the first step, and the padding.

    Each document, or its part in a sequence, is computed alone.
    """
    import torch.distributed

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    data = build_datasets(folder, checkpoint, prefix, 0, *options)
    torch.distributed.destroy_process_group()
    samples = [data.train[n] for n in range(8)]
    loss = torch.zeros(())
    tokens = 0
    for sample in samples:
        starts = [*(sample["position_ids"] == 0).nonzero().flatten().tolist(), 32]
        for start, end in itertools.pairwise(starts):
            count = int(sample["loss_mask"][start:end].sum())
            if count:
                inputs = sample["tokens"][start : start + count][None]
                labels = sample["labels"][start : start + count]
                logits = model(inputs).logits[0]
                loss = loss + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
                tokens += count
    (loss / tokens).backward()
    squares = sum(weight.grad.square().sum().item() for weight in model.parameters())
    padding = sum(int(sample["padding"].sum()) for sample in samples)
    return loss.item() / tokens, math.sqrt(squares), tokens, padding / (8 * 32)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, checkpoint, untied_llama, various):
    """Hugging Face's loss, gradient norm and tokens of the first step, each document alone."""
    model = AutoModelForCausalLM.from_pretrained(untied_llama)
    options = [*PADDED, "data.pad_documents_to_multiple_of=4"]
    return of_each_alone(tmp_path_factory.mktemp("built"), checkpoint, various, model, *options)


@pytest.fixture(scope="module")
def one_process(pretrain_forked, various):
    """A run of one process over the same padded documents."""
    files = [f"data.train=[{various}]", f"data.validation=[{various}]"]
    return pretrain_forked(1, *files, *PADDED, "data.pad_documents_to_multiple_of=4")


@pytest.mark.multiprocess
def test_padded_documents_have_the_loss_and_gradient_of_each_alone(one_process, reference):
    loss, norm, tokens, padding = reference
    first = log(one_process, "train")[0]
    assert first["loss"] == pytest.approx(loss, rel=1e-6)
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert (first["tokens"], first["padding_fraction"]) == (tokens, padding)
    assert padding > 0.03


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", PADDED_LAYOUTS)
def test_context_parallelism_divides_each_document(pretrain_forked, one_process, various, name):
    processes, layout = PADDED_LAYOUTS[name]
    files = [f"data.train=[{various}]", f"data.validation=[{various}]"]
    output = pretrain_forked(processes, *files, *PADDED, *layout)
    for kind in ("train", "validation"):
        pairs = zip(log(one_process, kind), log(output, kind), strict=True)
        for expected, actual in pairs:
            assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-6)
            assert actual["tokens"] == expected["tokens"]
            if kind == "train":
                assert actual["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
                assert actual["padding_fraction"] == expected["padding_fraction"]


@pytest.fixture(scope="module")
def olmo3(tmp_path_factory, tiny_tokenizer):
    """A tiny OLMo 3, as a folder and as a Megatron checkpoint."""
    folder = tmp_path_factory.mktemp("olmo3")
    torch.manual_seed(0)
    config = Olmo3Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        sliding_window=8,
        initializer_range=0.2,
        eos_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_tokenizer / file, folder / file)
    return folder, import_model(folder, tmp_path_factory.mktemp("olmo3") / "checkpoint")


@pytest.mark.multiprocess
def test_yarn_scales_the_full_attention_of_packed_documents(
    tmp_path, olmo3, various, pretrain_forked
):
    """Best-fit packing, YaRN and windows under context parallelism, against transformers."""
    folder, checkpoint = olmo3
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}
    plain = {"rope_type": "default", "rope_theta": 500000.0}
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        rope_parameters={"full_attention": plain | scaling, "sliding_attention": plain},
        max_position_embeddings=32,
    )
    options = [*PADDED, "data.pad_documents_to_multiple_of=4", "data.packing_strategy=bfd"]
    options.append(f"model.rope.rope_scaling={json.dumps(scaling)}")
    loss, norm, tokens, padding = of_each_alone(tmp_path, checkpoint, various, model, *options)
    files = [f"data.train=[{various}]", f"data.validation=[{various}]"]
    context = ["parallel.context_parallel_size=2", "parallel.cp_comm_type=all_gather"]
    model_option = f"model.checkpoint={checkpoint}"
    output = pretrain_forked(2, model_option, *files, *options, *context)
    first = log(output, "train")[0]
    assert first["loss"] == pytest.approx(loss, rel=1e-6)
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert (first["tokens"], first["padding_fraction"]) == (tokens, padding)
