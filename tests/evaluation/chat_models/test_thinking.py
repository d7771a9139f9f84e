"""Thinking: markers of the families, separation from the answer, budget and budget forcing."""

import pytest

from evaluation.backends.base import Batching
from evaluation.backends.encoding import Generated, GenerationRequest
from evaluation.backends.sampling import Sampling
from evaluation.chat_models import thinking, thinking_budget
from evaluation.chat_models.thinking import FAMILIES, Markers, Split
from evaluation.chat_models.thinking_budget import ThinkingBudget

THINK = FAMILIES["think"]


@pytest.mark.parametrize(
    ("vocabulary", "family"),
    [
        ({"<think>", "</think>"}, "think"),
        ({"[THINK]", "[/THINK]", "[INST]"}, "magistral"),
        ({"<|channel|>", "<|message|>", "<|start|>"}, "gpt-oss"),
        ({"<|inner_prefix|>", "<|inner_suffix|>"}, "apertus"),
        ({"<start_of_turn>", "<end_of_turn>", "<unused94>"}, None),
    ],
)
def test_markers_are_those_of_the_family(vocabulary, family):
    assert thinking.detect("", vocabulary) == (FAMILIES[family] if family else None)


def test_a_chat_template_shows_markers_that_are_no_tokens():
    template = "{{ content.split('</think>')[-1] }}"
    assert thinking.detect(template, ()) == THINK


@pytest.mark.parametrize(
    ("text", "starts_open", "expected"),
    [
        ("<think>A or B?</think>\n\nB", False, Split("A or B?", "\n\nB", False)),
        ("A or B?</think>B", True, Split("A or B?", "B", False)),
        ("<think>The answer is A", False, Split("The answer is A", "", True)),
        ("The answer is A", True, Split("The answer is A", "", True)),
        ("The answer is A", False, Split("", "The answer is A", False)),
        ("<think>x</think>B<think>or A", False, Split("xor A", "B", True)),
        ("<think></think>B", False, Split("", "B", False)),
        ("", True, Split("", "", True)),
        ("", False, Split("", "", False)),
    ],
)
def test_thinking_and_answer(text, starts_open, expected):
    assert thinking.split(text, THINK, starts_open) == expected


def test_the_channels_of_gpt_oss():
    text = (
        "<|channel|>analysis<|message|>A or B?<|end|><|start|>assistant"
        "<|channel|>final<|message|>Answer: B"
    )
    split = thinking.split(text, FAMILIES["gpt-oss"])
    assert (split.answer, split.is_cut_off) == ("Answer: B", False)
    assert split.thinking.startswith("A or B?")


def test_a_prompt_that_opens_thinking_is_closed_where_none_is_wanted():
    assert thinking.closed("<a><think>\n", THINK) == "<a><think>\n</think>\n\n"
    assert thinking.closed("<a><think>", THINK) == "<a><think>\n</think>\n\n"
    assert thinking.closed("<a>\n", THINK) == "<a>\n"
    channel = thinking.closed("<|start|>assistant", FAMILIES["gpt-oss"])
    assert channel == "<|start|>assistant<|channel|>final<|message|>"


class Characters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text, add_special_tokens=False):
        return [ord(character) for character in text]


class Scripted:
    """A backend that writes a fixed text, a character a token, and records its requests."""

    tokenizer = Characters()

    def __init__(self, text, context_length=None):
        self.text = text
        self.context_length = context_length
        self.requests = []

    def generate(self, requests, batching):
        for index, request in enumerate(requests):
            self.requests.append(request)
            written = "".join(map(chr, request.prompt)).partition("|")[2]
            rest = self.text.removeprefix(written) if self.text.startswith(written) else "B!"
            new = rest[: request.max_new_tokens]
            answer = Generated(new, len(new), new == rest, tuple(map(ord, new)))
            yield [(index, [answer] * len(request.seeds))]


def generated(text, limit, tokens, cue="", context_length=None):
    backend = Scripted(text, context_length)
    request = GenerationRequest(
        [ord(character) for character in "Question|"], limit, ("###",), Sampling(), ("seed",)
    )
    budget = ThinkingBudget(tokens, Markers("<t>", "</t>"), cue)
    [[(_, [answer])]] = list(
        thinking_budget.generate(backend, [request], Batching(100), budget, [False])
    )
    return answer, backend.requests


def test_an_answer_within_the_budget_is_generated_once():
    answer, requests = generated("<t>hm</t>B", 5, 40)
    assert (answer.text, answer.finished, len(requests)) == ("<t>hm</t>B", True, 1)
    assert requests[0].stop == ()  # within thinking it stops nothing


def test_an_answer_after_closed_thinking_is_continued_up_to_its_own_limit():
    answer, requests = generated("<t>hm</t>The answer is B.", 12, 12)
    assert answer.text == "<t>hm</t>The answer is"[: 9 + 12]
    assert (answer.num_tokens, answer.finished, answer.is_forced) == (21, False, False)
    assert [request.max_new_tokens for request in requests] == [12, 9]


def test_thinking_beyond_the_budget_is_cut_off():
    answer, requests = generated("<t>" + "hm " * 50, 12, 20)
    assert (answer.text, answer.finished, len(requests)) == ("<t>hm hm hm hm hm hm"[:20], False, 1)


def test_budget_forcing_closes_the_thinking_and_asks_for_the_answer():
    answer, requests = generated("<t>" + "hm " * 50, 12, 20, cue="Answer: ")
    assert answer.text == "<t>hm hm hm hm hm hm"[:20] + "\n</t>\n\nAnswer: B!"
    assert (answer.num_tokens, answer.finished, answer.is_forced) == (22, True, True)
    assert requests[1].seeds == ("seed\nanswer",)


def test_the_budget_leaves_room_for_the_answer_in_the_context():
    _, requests = generated("<t>" + "hm " * 50, 12, 400, "Answer: ", context_length=60)
    assert requests[0].max_new_tokens == 60 - len("Question|\n</t>\n\nAnswer: ") - 12
    assert len(requests[1].prompt) + requests[1].max_new_tokens <= 60
