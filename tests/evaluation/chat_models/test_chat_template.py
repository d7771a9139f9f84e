"""Harmless chat templates render as in transformers; those that hang or eat memory are ended."""

import os
import time

import pytest
from transformers import AutoTokenizer

from evaluation.chat_models import chat_template
from galen.errors import DataError
from tests.conftest import ROOT

MESSAGES = [
    {"role": "user", "content": "A<b>é\U0001f600"},
    {"role": "assistant", "content": "B"},
    {"role": "user", "content": "C"},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return AutoTokenizer.from_pretrained(tiny_tokenizer)


BUILT_IN = sorted((ROOT / "finetune" / "data" / "chat_templates").glob("*.jinja"))
PLAIN = [
    (
        "{% for m in messages %}{{ bos_token }}{{ m['role'] | upper }}: {{ m.content | tojson }}{{"
        " eos_token }}{% endfor %}"
    ),
    (
        "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% generation %}"
        "{% set ns.n = ns.n + 1 %}{{ ns.n }}{% endgeneration %}{% endfor %}"
    ),
    (
        "{{ strftime_now('%Y') | length }}{% if add_generation_prompt %}go{% endif %}"
        "{% for i in range(3) %}{% if i == 1 %}{% break %}{% endif %}x{% endfor %}"
    ),
]


@pytest.mark.parametrize("template", [*[path.read_text() for path in BUILT_IN], *PLAIN])
@pytest.mark.parametrize("open_answer", [False, True])
def test_the_text_is_that_of_transformers(tokenizer, template, open_answer):
    tokenizer.chat_template = template
    expected = tokenizer.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=open_answer
    )
    assert chat_template.render(tokenizer, MESSAGES, open_answer) == expected


TIME = "needs more than 5 s of processor time"
ATTACKS = {
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": TIME,
    "{% for i in range(10 ** 9) %}x{% endfor %}": "Range too big",
    "{{ 'a' * 10 ** 10 }}": "1 GiB of memory",
    "{{ 'a' | center(10 ** 10) }}": "1 GiB of memory",
    "{{ '%010000000000d' % 1 }}": "needs more than|refuses",
    "{{ 10 ** (10 ** 10) }}": "needs more than",
    "{{ 'a' * 10 ** 8 }}": "16,777,216 characters",
    "{% set ns = namespace(s='a') %}"
    "{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}": "1 GiB of memory",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "refuses",
    "{{ ''.__class__.__mro__ }}": "refuses",
    "{% for %}": "refuses",
    "{{ raise_exception('turns must\nalternate') }}": (
        "refuses a conversation with the roles .*: turns must alternate"
    ),
    "{{ 'x' | nofilter }}": "refuses",
    "{{ messages.append(1) }}": "refuses",
}


@pytest.mark.slow
@pytest.mark.parametrize("template", ATTACKS)
def test_attacks_are_ended(tokenizer, template):
    tokenizer.chat_template = template
    started = time.monotonic()
    with pytest.raises(DataError, match=ATTACKS[template]) as error:
        chat_template.render(tokenizer, MESSAGES)
    assert "\n" not in str(error.value) and "the chat template" in str(error.value)
    assert time.monotonic() - started < 60


def test_a_template_that_waits_for_a_certain_message(tokenizer):
    """It is bounded each time, not only when it is first seen."""
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.content == 'C' %}{{ 'a' * 10 ** 10 }}{% endif %}x{%"
        " endfor %}"
    )
    assert chat_template.render(tokenizer, MESSAGES[:2]) == "xx"
    with pytest.raises(DataError, match="1 GiB of memory"):
        chat_template.render(tokenizer, MESSAGES)
    assert chat_template.render(tokenizer, MESSAGES[:2]) == "xx"


def test_a_forked_process_asks_its_own(tokenizer):
    tokenizer.chat_template = "x"
    assert chat_template.render(tokenizer, MESSAGES) == "x"
    process = chat_template._process._process
    child = os.fork()
    if not child:
        chat_template.render(tokenizer, MESSAGES)
        os._exit(int(chat_template._process._process is process))
    assert os.waitpid(child, 0)[1] == 0
    assert (
        chat_template.render(tokenizer, MESSAGES) == "x"
        and chat_template._process._process is process
    )
