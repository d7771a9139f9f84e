"""With data.reset_attention_mask a token attends to its own document only, under every layout."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from tests.conftest import run
from tests.megatron_ext.conftest import log

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
