"""Conversations against transformers' own rendering and against lm-evaluation-harness' prompts."""

from pathlib import Path

import jinja2
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from evaluation.backends import encoding
from evaluation.backends.base import Batching
from evaluation.backends.transformers_backend import TransformersBackend
from evaluation.chat_models import conversation
from evaluation.prompts.registry import get_template
from evaluation.protocols.registry import get_protocol
from evaluation.question_sets.question import Question
from galen.errors import DataError, UsageError

FOLDER = Path(__file__).parent / "templates"
NAMES = ["chatml", "llama3", "mistral", "gemma", "gemma3", "qwen3", "deepseek_r1", "gpt_oss"]
OPTIONS = {"A": "Aorta", "B": "Vena cava", "C": "Portal vein", "D": "Azygos vein"}
QUESTIONS = [
    Question(
        f"q{n}", "", f"Which vessel has number {n}?", OPTIONS, "ABCD"[n], "mmlu", subject="anatomy"
    )
    for n in range(3)
]
SYSTEM = "You are a careful physician."


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """A tokenizer that puts BOS before a text, as Llama's and Mistral's do."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert tokenizer.encode("x")[0] == tokenizer.bos_token_id
    return tokenizer


def created(tokenizer, name, protocol="lm_eval", **settings):
    settings = {"chat_template": str(FOLDER / f"{name}.jinja")} | settings
    return conversation.create(get_protocol(protocol, **settings), tokenizer)


def by_transformers(tokenizer, name, messages, **variables):
    text = (FOLDER / f"{name}.jinja").read_text().rstrip("\n")
    for code, date in (("%d %b %Y", "26 Jul 2024"), ("%Y-%m-%d", "2024-07-26")):
        text = text.replace(f'strftime_now("{code}")', f"'{date}'")
    tokenizer.chat_template = text
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **variables
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", ["chat", "chat_cot_json", "meditron", "lm_eval"])
def test_prompts_are_those_of_transformers(tokenizer, name, template):
    prompt = get_template(template)(QUESTIONS[0], QUESTIONS[1:])
    asked = created(tokenizer, name, "chat", system_prompt=SYSTEM, fewshot_as_multiturn=False)
    messages = asked.messages(prompt)
    expected = by_transformers(tokenizer, name, messages, enable_thinking=False)
    text = asked.prompt(prompt).text
    if name == "deepseek_r1":
        assert text == f"{expected}</think>\n\n"
    elif name == "gpt_oss":
        assert text == f"{expected}<|channel|>final<|message|>"
    else:
        assert text == expected
    assert SYSTEM in text and QUESTIONS[0].question in text


def harness_prompt(tokenizer, name, multiturn, system, questions):
    """Return the prompt and the answers that lm-evaluation-harness builds for a task of its own."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    class Task(ConfigurableTask):
        def download(self, *_, **__):
            parts = {"test": questions[:1], "dev": questions[1:]}
            self.dataset = {name: Dataset.from_list(part) for name, part in parts.items()}

    task = Task(
        config={
            "task": "anatomy",
            "dataset_path": "local",
            "test_split": "test",
            "fewshot_split": "dev",
            "fewshot_config": {"sampler": "first_n"},
            "description": (
                "The following are multiple choice questions (with answers) about anatomy.\n\n"
            ),
            "doc_to_text": (
                "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}"
                "\nD. {{choices[3]}}\nAnswer:"
            ),
            "doc_to_choice": ["A", "B", "C", "D"],
            "doc_to_target": "answer",
            "output_type": "multiple_choice",
        }
    )

    def render(messages, add_generation_prompt=True):
        try:
            return by_transformers(tokenizer, name, messages)
        except jinja2.exceptions.TemplateError:  # as in its HFLM
            messages = [message for message in messages if message["role"] != "system"]
            return by_transformers(tokenizer, name, messages)

    context = task.fewshot_context(
        questions[0],
        num_fewshot=len(questions) - 1,
        system_instruction=system,
        apply_chat_template=True,
        fewshot_as_multiturn=multiturn,
        chat_template=render,
    )
    requests = task.construct_requests(
        questions[0], context, apply_chat_template=True, metadata=(None, 0, None)
    )
    return context, [request.args[1] for request in requests]


@pytest.mark.slow
@pytest.mark.parametrize("multiturn", [True, False])
@pytest.mark.parametrize("name", ["chatml", "llama3", "mistral", "qwen3"])
def test_few_shot_prompts_are_those_of_lm_eval(tokenizer, name, multiturn):
    records = [
        {"question": item.question, "choices": list(OPTIONS.values()), "answer": number}
        for number, item in enumerate(QUESTIONS)
    ]
    expected, answers = harness_prompt(tokenizer, name, multiturn, SYSTEM, records)
    asked = created(
        tokenizer,
        name,
        system_prompt=SYSTEM,
        fewshot_as_multiturn=multiturn,
        chat_template_kwargs={"enable_thinking": True},
    )
    prompt = asked.prompt(get_template("lm_eval")(QUESTIONS[0], QUESTIONS[1:]))
    assert prompt.text == expected
    assert list(prompt.continuations.values()) == answers == ["A", "B", "C", "D"]


def test_gemma_gets_the_system_prompt_in_the_first_message_where_lm_eval_loses_it(tokenizer):
    asked = created(tokenizer, "gemma", system_prompt=SYSTEM, fewshot_as_multiturn=True)
    assert asked.record()["system_role"] == "user"
    prompt = asked.prompt(get_template("lm_eval_continuation")(QUESTIONS[0], QUESTIONS[1:2]))
    example, question = (item.question for item in (QUESTIONS[1], QUESTIONS[0]))
    assert prompt.text == (
        f"{tokenizer.bos_token}<start_of_turn>user\n{SYSTEM}\n\nThe following are questions"
        f" (with answers) about anatomy.\n\nQuestion: {example}\nAnswer:"
        "<end_of_turn>\n<start_of_turn>model\nVena cava<end_of_turn>\n<start_of_turn>user\n"
        f"Question: {question}\nAnswer:<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("name", ["llama3", "chatml", "gemma3"])
def test_tokens_are_those_of_transformers_and_bos_is_not_doubled(tokenizer, name):
    asked = created(tokenizer, name)
    template = get_template("lm_eval")
    prompt = asked.prompt(template(QUESTIONS[0]))
    tokenizer.chat_template = asked.template
    expected = tokenizer.apply_chat_template(
        asked.messages(template(QUESTIONS[0])), add_generation_prompt=True, return_dict=False
    )
    assert encoding.encode_for_generation(tokenizer, prompt) == expected
    assert expected.count(tokenizer.bos_token_id) == (name != "chatml")
    request = encoding.encode_prompt(tokenizer, prompt)
    # the line breaks of the generation prompt belong to the prompt, and are not scored
    assert request.prompt == expected
    assert [tokenizer.decode(ids) for ids in request.continuations] == ["A", "B", "C", "D"]


@pytest.mark.slow
def test_log_likelihoods_are_those_of_lm_eval_without_the_line_break(tokenizer, tiny_llama):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    backend = TransformersBackend(tiny_llama, device="cpu")
    asked = created(backend.tokenizer, "chatml")
    prompt = asked.prompt(get_template("lm_eval")(QUESTIONS[0]))
    request = encoding.encode_prompt(backend.tokenizer, prompt)
    # the harness scores the line break that ends the generation prompt, too
    *before, line_break = request.prompt
    requests = [request, encoding.Request(before, [[line_break]])]
    [[(_, ours), (_, [of_line_break])]] = [
        sorted(batch) for batch in backend.log_likelihoods(requests, Batching(10**6))
    ]
    harness = HFLM(pretrained=backend.runner.model, tokenizer=backend.tokenizer, batch_size=1)
    instances = [
        Instance("loglikelihood", {}, (prompt.text, answer), number)
        for number, answer in enumerate(prompt.continuations.values())
    ]
    theirs = [value for value, _ in harness.loglikelihood(instances)]
    assert [value + of_line_break for value in ours] == pytest.approx(theirs, abs=1e-4)


def test_scored_answers_follow_closed_thinking(tokenizer):
    prompt = get_template("lm_eval")(QUESTIONS[0])
    for name, end in (
        ("qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("deepseek_r1", "<|Assistant|><think>\n</think>\n\n"),
    ):
        assert created(tokenizer, name).prompt(prompt).text.endswith(end)
    thinking = created(tokenizer, "deepseek_r1", "reasoning")
    assert thinking.prompt(prompt).text.endswith("<|Assistant|><think>\n")
    assert thinking.starts_open(thinking.prompt(prompt))


def test_gpt_oss_thinks_with_the_effort_that_is_set(tokenizer):
    prompt = get_template("chat_cot")(QUESTIONS[0])
    asked = created(
        tokenizer,
        "gpt_oss",
        "reasoning",
        system_prompt=SYSTEM,
        chat_template_kwargs={"reasoning_effort": "high"},
    )
    text = asked.prompt(prompt).text
    messages = asked.messages(prompt)
    assert text == by_transformers(tokenizer, "gpt_oss", messages, reasoning_effort="high")
    assert "\n\nReasoning: high\n\n" in text
    assert f"<|start|>developer<|message|># Instructions\n\n{SYSTEM}" in text
    assert text.endswith("<|start|>assistant")
    assert asked.has_thinking and not asked.starts_open(asked.prompt(prompt))


def test_a_model_without_template_reads_plain_text(tokenizer):
    tokenizer.chat_template = None
    prompt = get_template("lm_eval")(QUESTIONS[0])
    asked = conversation.create(get_protocol("lm_eval", chat_template="auto"), tokenizer)
    assert asked.prompt(prompt) is prompt
    assert asked.record() == {"template": "none"}


def test_a_file_that_is_no_template_is_named(tokenizer, tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        created(tokenizer, "missing")
    (tmp_path / "empty.jinja").write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        created(tokenizer, "x", chat_template=str(tmp_path / "empty.jinja"))


def test_a_template_that_refuses_a_question_is_an_error(tokenizer, tmp_path):
    path = tmp_path / "refusing.jinja"
    path.write_text("{{ raise_exception('never') }}")
    with pytest.raises(DataError, match=r"the chat template refuses .*never"):
        created(tokenizer, "x", chat_template=str(path))


def test_a_template_that_leaves_out_messages_is_an_error(tokenizer, tmp_path):
    path = tmp_path / "template.jinja"
    path.write_text("Hello.")
    with pytest.raises(DataError, match="leaves out the user's message"):
        created(tokenizer, "", chat_template=str(path))
    path.write_text("{{ messages[-1]['content'] }}")
    asked = created(tokenizer, "", "chat", chat_template=str(path), fewshot_as_multiturn=True)
    template = get_template("chat")
    assert QUESTIONS[0].question in asked.prompt(template(QUESTIONS[0])).text
    with pytest.raises(DataError, match=r"leaves out earlier messages.*--no-fewshot-as-multiturn"):
        asked.prompt(template(QUESTIONS[0], QUESTIONS[1:]))
