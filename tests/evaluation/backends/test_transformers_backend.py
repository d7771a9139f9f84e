"""Log-likelihoods against a naive reference.

One unpadded forward pass for each continuation, all logits, log-softmax.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.backends import encoding, model_folder
from evaluation.backends.base import Batching, batches
from evaluation.backends.encoding import Request
from evaluation.backends.transformers_backend import TransformersBackend, default_device
from evaluation.prompts.registry import LIKELIHOOD_TEMPLATES, Prompt, get_template
from evaluation.question_sets import question
from galen.errors import DataError, UsageError


@pytest.fixture(scope="module")
def backend(tiny_llama):
    return TransformersBackend(tiny_llama, device="cpu")


@pytest.fixture(scope="module")
def naive(tiny_llama):
    """Return the reference: a function from prompt and continuation to a log-likelihood."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)

    def log_likelihood(prompt, continuation):
        ids = tokenizer.encode(prompt + continuation)
        start = len(tokenizer.encode(prompt))
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(logits[index - 1, ids[index]].item() for index in range(start, len(ids)))

    return log_likelihood


def score(backend, requests, max_batch_tokens, done=()):
    return dict(
        pair
        for batch in backend.log_likelihoods(requests, Batching(max_batch_tokens, done))
        for pair in batch
    )


@pytest.mark.parametrize("max_batch_tokens", [1, 300, 100_000])
@pytest.mark.parametrize("protocol", sorted(LIKELIHOOD_TEMPLATES))
def test_questions_equal_the_naive_reference(backend, naive, data, max_batch_tokens, protocol):
    prompts = [
        get_template(protocol)(item) for item in question.read(data / "questions" / "test.jsonl")
    ]
    requests = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompts]
    found = score(backend, requests, max_batch_tokens)
    for index, prompt in enumerate(prompts):
        expected = [
            naive(prompt.text, continuation) for continuation in prompt.continuations.values()
        ]
        assert found[index] == pytest.approx(expected, abs=1e-5)
        assert max(expected) - min(expected) > 0.01  # the reference can tell the options apart


@pytest.mark.parametrize(
    ("max_batch_tokens", "attention"),
    [(1, "sdpa"), (200, "sdpa"), (100_000, "sdpa"), (200, "eager")],
)
def test_options_of_several_tokens_equal_the_naive_reference(
    backend, naive, max_batch_tokens, attention, monkeypatch
):
    monkeypatch.setattr(backend.runner.model.config, "_attn_implementation", attention)
    prompts = [
        Prompt(
            "The drug was", {"A": " Heart", "B": " Liver failure", "C": " A", "D": " Answer: which"}
        ),
        Prompt(
            "Question: which heading? The organ was the",
            {"A": " B", "B": " Liver", "C": " Liver failure"},
        ),
        Prompt("Ends with a space: ", {"A": "Heart", "B": "Rats and mice"}),
    ]
    requests = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompts]
    assert (
        max(len(continuation) for request in requests for continuation in request.continuations) > 2
    )
    found = score(backend, requests, max_batch_tokens)
    for index, prompt in enumerate(prompts):
        stripped = prompt.text.rstrip()
        space = prompt.text[len(stripped) :]
        expected = [
            naive(stripped, space + continuation) for continuation in prompt.continuations.values()
        ]
        assert found[index] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("max_batch_tokens", [1, 10_000])
def test_documents_are_scored_from_the_prefix_token_on(backend, naive, max_batch_tokens):
    texts = [
        "The heart of 12 rats was studied in all groups.",
        "Aspirin.",
        "血圧 was lowered by 5 % in " + "adults and " * 9,
    ]
    requests, sizes = zip(
        *(encoding.encode_document(backend.tokenizer, text, 256) for text in texts), strict=True
    )
    assert sizes == tuple(len(text.encode()) for text in texts)
    found = score(backend, requests, max_batch_tokens)
    for index, text in enumerate(texts):
        assert found[index] == pytest.approx([naive("<|endoftext|>", text)], abs=1e-4)


def test_a_long_document_is_cut_and_its_bytes_with_it(backend):
    request, size = encoding.encode_document(backend.tokenizer, "血圧 heart " * 50, 8)
    assert len(request.continuations[0]) == 8
    assert 0 < size < len(("血圧 heart " * 50).encode())
    assert len(backend.tokenizer.decode(request.continuations[0]).rstrip("�").encode()) == size


def test_batches_without_what_is_done_give_the_same_bits(backend):
    requests = [Request([2 + n] * (3 + n), [[5], [6], [7, 8]]) for n in range(12)]
    everything = score(backend, requests, 60)
    rest = score(backend, requests, 60, done=range(6))
    assert set(range(6, 12)) <= set(rest) < set(everything)
    assert all(rest[index] == everything[index] for index in rest)


def test_an_adapter_changes_the_score(backend, tiny_llama, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_llama),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
    )
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    request = Request([5, 6, 7, 8], [[9], [10], [11, 12]])
    adapted = TransformersBackend(tiny_llama, tmp_path / "adapter", device="cpu")
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7, 8, 11]])).logits[0].log_softmax(-1)
        expected = [
            logits[3, 9].item(),
            logits[3, 10].item(),
            (logits[3, 11] + logits[4, 12]).item(),
        ]
    assert score(adapted, [request], 100)[0] == pytest.approx(expected, abs=1e-5)
    assert score(backend, [request], 100)[0] != pytest.approx(expected, abs=1e-2)


def test_batches_keep_the_bound_and_lose_nothing():
    lengths = dict(enumerate([9, 7, 7, 3, 3, 3, 1]))
    found = list(batches(range(7), lengths, 14))
    assert [index for batch in found for index in batch] == list(range(7))
    assert all(
        len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 14
        for batch in found
    )
    assert found[:2] == [[0], [1, 2]]


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch):
    for variable in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(variable, raising=False)
    assert (default_device(0), default_device(4)) == ("cpu", "cuda:0")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    # a job step may show each task its own GPU alone
    assert (default_device(4), default_device(1)) == ("cuda:1", "cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device(4) == "cuda:3"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_config.json", "is a PEFT adapter: pass it as --adapter"),
        (
            "latest_checkpointed_iteration.txt",
            r"is a Megatron checkpoint: `galen export` exports it",
        ),
        (
            "checkpoints/latest_checkpointed_iteration.txt",
            r"is a pretraining run: `galen export` exports .*/checkpoints\)",
        ),
        ("adapter/adapter_config.json", "is a fine-tuning run: its result is .*/adapter"),
        ("model/config.json", "is a fine-tuning run: its result is .*/model"),
    ],
)
def test_a_folder_that_is_not_a_model_is_identified(tmp_path, file, message):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(DataError, match=message):
        model_folder.check_model(tmp_path)


def test_folders_that_are_no_models(tiny_llama, tmp_path):
    with pytest.raises(UsageError, match="there is no model folder"):
        TransformersBackend(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"tokenizer\.json is a file; models are folders"):
        TransformersBackend(tiny_llama / "tokenizer.json")
    with pytest.raises(DataError, match=r"it has no config\.json"):
        TransformersBackend(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be loaded"):
        TransformersBackend(tmp_path)
    with pytest.raises(DataError, match="is not a PEFT adapter"):
        TransformersBackend(tiny_llama, adapter=tiny_llama)
    with pytest.raises(UsageError, match="--device cudda: "):
        TransformersBackend(tiny_llama, device="cudda")


def test_ids_without_an_embedding(backend):
    with pytest.raises(DataError, match="the id 300, but the model has 300 embeddings"):
        score(backend, [Request([5, 300], [[6], [7]])], 100)
    with pytest.raises(DataError, match="the id 301, but the model has 300 embeddings"):
        score(backend, [Request([5], [[6], [7, 301]])], 100)


def test_a_model_with_a_short_window_is_scored_row_by_row(tmp_path, tiny_tokenizer):
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = MistralConfig(
        **sizes,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.2,
    )
    model = MistralForCausalLM(config).eval()
    backend = TransformersBackend.from_model(
        model, AutoTokenizer.from_pretrained(tiny_tokenizer), torch.device("cpu")
    )
    requests = [
        Request(list(range(5, 30 + n)), [[7], [6], [8, 9, 10], [8, 9], [8, 2]]) for n in range(5)
    ]
    sizes = []
    of_backend = model.register_forward_pre_hook(
        lambda _, given, options: sizes.append(options["input_ids"].numel()), with_kwargs=True
    )
    batches = list(backend.next_tokens(requests, Batching(200)))
    of_backend.remove()
    for batch in batches:
        for index, values, top in batch:
            for continuation, value in zip(requests[index].continuations, values, strict=True):
                ids = requests[index].prompt + continuation
                with torch.no_grad():
                    logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
                start = len(requests[index].prompt)
                expected = sum(logits[n - 1, ids[n]].item() for n in range(start, len(ids)))
                assert value == pytest.approx(expected, abs=1e-5)
                assert top == int(logits[start - 1].argmax())
    # three rows a request: what continuations have alike is there once
    assert max(sizes) <= 200 and sum(sizes) < 3 * 5 * 32
