"""Each family of checkpoints_convert: batches, trees and caches give what plain passes give."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from evaluation.backends.base import Batching
from evaluation.backends.encoding import GenerationRequest, Request
from evaluation.backends.sampling import Sampling
from evaluation.backends.transformers_backend import TransformersBackend
from tests.checkpoints_convert import tiny_models
from tests.checkpoints_convert.tiny_models import FAMILIES, MOE

MODELS = FAMILIES | MOE
TRANSFORMERS = [name for name in MODELS if name != "internlm2"]
NEW_TOKENS = 12


def random_tokens(*lengths):
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, 300, (length,), generator=generator).tolist() for length in lengths]


def prompts():
    """Prompts of several lengths that share 20 tokens, and one that is short."""
    prefix, *rests, short = random_tokens(20, 1, 7, 12, 5)
    return [*(prefix + rest for rest in rests), short]


def requests():
    a, b, c = random_tokens(1, 1, 2)
    return [Request(prompt, [a + c, a + b, a, b]) for prompt in prompts()]


def generation_requests():
    return [GenerationRequest(prompt, NEW_TOKENS, (), Sampling(), ("0",)) for prompt in prompts()]


def plain_logits(model, tokens):
    return model(torch.tensor([tokens])).logits[0]


def plain_log_likelihood(model, prompt, continuation):
    scores = plain_logits(model, prompt + continuation).log_softmax(-1)
    first = len(prompt) - 1
    return sum(scores[first + n, token].item() for n, token in enumerate(continuation))


def plain_answer(model, prompt):
    tokens = list(prompt)
    while len(tokens) < len(prompt) + NEW_TOKENS and 0 not in tokens[len(prompt) :]:
        tokens.append(int(plain_logits(model, tokens)[-1].argmax()))
    return tuple(tokens[len(prompt) :])


CASES = [(name, None) for name in TRANSFORMERS]
"""Model, and another sliding window than its own: longer than the inputs."""
CASES += [(name, 128) for name in TRANSFORMERS if MODELS[name].options.get("sliding_window")]


@pytest.mark.parametrize(("name", "window"), CASES)
@torch.inference_mode()
def test_scores_and_answers_are_those_of_plain_passes(tmp_path, tiny_tokenizer, name, window):
    options = {} if window is None else {"sliding_window": window}
    tiny_models.make(tmp_path, name, tiny_tokenizer, **options)
    backend = TransformersBackend(tmp_path, device="cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    has_window = bool(MODELS[name].options.get("sliding_window"))
    assert backend._can_share_prefixes(50) == (window is not None or not has_window)
    scores = dict(
        pair for batch in backend.log_likelihoods(requests(), Batching(300)) for pair in batch
    )
    for index, request in enumerate(requests()):
        expected = [
            plain_log_likelihood(model, request.prompt, continuation)
            for continuation in request.continuations
        ]
        assert scores[index] == pytest.approx(expected, abs=1e-5)
    answers = dict(
        pair for batch in backend.generate(generation_requests(), Batching(300)) for pair in batch
    )
    for index, request in enumerate(generation_requests()):
        assert answers[index][0].ids == plain_answer(model, request.prompt)
