"""The recipe of an evaluation: models, tasks, protocol and further settings."""

import importlib.util
import logging
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from evaluation.backends import model_folder
from evaluation.chat_models import conversation
from evaluation.protocols.protocol import Protocol
from evaluation.protocols.registry import get_protocol
from evaluation.scoring import endpoint_settings
from galen import recipe
from galen.errors import UsageError, install, one_line

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, config=recipe.STRICT)
class Recipe:
    """Which models are scored on which tasks, and how."""

    model: list[Path] = field(default_factory=list)
    """Hugging Face folders, or Megatron checkpoints; empty with the backend openai."""
    iterations: int | str | None = None
    """Of a Megatron checkpoint: numbers with commas, or all; null: the newest."""
    adapter: Path | None = None
    """PEFT adapter on top of the model."""
    tasks: list[str]
    """Built-in tasks, paths of task files, or lm_eval:NAME, a task of lm-evaluation-harness."""
    lm_eval_include_path: Path | None = None
    """Folder of further task files of lm-evaluation-harness."""
    lm_eval_gen_kwargs: dict[str, Any] | None = None
    """Generation settings that override those of the harness' tasks, such as max_gen_toks."""
    protocol: str = "lm_eval"
    """Protocol: prompt template, few-shot examples, answer extraction."""
    fewshot_examples: Path | None = None
    """Questions in Galen's layout to show, in order, in place of the task's."""
    num_fewshot: int | None = None
    """Few-shot examples before each question; null: the protocol's number."""
    fewshot_seeds: list[int] | None = None
    """Seeds of the few-shot examples, one run each; null: the protocol's."""
    num_samples: int | None = None
    """Answers sampled for a question by self-consistency; null: the protocol's number."""
    max_new_tokens: int | None = None
    """Maximum length of a generated answer in tokens; null: the protocol's."""
    temperature: float | None = None
    """0 is greedy decoding; null: the protocol's, or the model's own."""
    top_p: float | None = None
    """Sample from tokens with this total probability; null: the protocol's, or the model's own."""
    top_k: int | None = None
    """Sample from so many tokens, 0 from all; null: the protocol's, or the model's own."""
    repetition_penalty: float | None = None
    """Penalty on tokens that occurred; null: the protocol's, or the model's own."""
    chat_template: str | None = None
    """`auto` (the tokenizer's), `none`, or a Jinja file; null: the protocol's."""
    system_prompt: str | None = None
    """System message, or @FILE."""
    fewshot_as_multiturn: bool | None = None
    """Few-shot examples as turns of the conversation; null: the protocol's choice."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables of the chat template, such as enable_thinking."""
    answer_format: Literal["letter", "json", "boxed"] | None = None
    """Format that chat, chat_cot and reasoning ask for; null: the protocol's."""
    guided_decoding: bool | None = None
    """Force JSON answers to their schema; null: where the backend can."""
    thinking_markers: list[str] | None = None
    """Opening and closing text around the thinking; null: those of the model's family."""
    thinking_budget: int | None = None
    """Maximum tokens of thinking; max_new_tokens then limits the answer after it."""
    budget_forcing: bool | None = None
    """Close thinking beyond its budget, and ask for the answer."""
    data: Path
    """Folder that contains the tasks' files."""
    output: Path
    """Folder for samples and results; of several models, one each below it."""
    verify_checksums: bool = True
    """Compare models with the SHA-256 in their manifest.json."""
    name: str | None = None
    """The model's name in reports; null: the output folder's name."""
    limit: int | None = None
    """Score only so many samples of each task, chosen by a hash of their ids; null: all."""
    permute_options: int | None = None
    """Score each question with its options in so many orders, the original first; null: only it."""
    permute_seed: int = 0
    """Seed of the orders; not used where there are as many as options."""
    contamination: Path | None = None
    """JSONL of {"id", "ratio"}: the fraction of a sample's n-grams that the corpus contains."""
    contamination_threshold: float = 0.5
    """Ratio from which on a sample counts as contaminated."""
    backend: Literal["transformers", "vllm", "openai"] = "transformers"
    """Library that runs the model; openai: an OpenAI-compatible endpoint."""
    base_url: str | None = None
    """Base of the endpoint, for example http://localhost:8000/v1."""
    model_name: str | None = None
    """The model's name at the endpoint."""
    route: Literal["chat", "completions"] = "chat"
    """Route of the endpoint; completions also scores given texts, where the endpoint can."""
    tokenizer: Path | None = None
    """Folder of the model's tokenizer: the route completions then gets token ids."""
    top_logprobs: int | None = None
    """Log-probabilities to ask for where a letter is read; null: 20, for completions 5."""
    concurrency: int = 8
    """Requests to the endpoint at the same time."""
    request_timeout: float = 300.0
    """Maximum seconds for a reply of the endpoint."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the endpoint's key, which is never recorded."""
    price_in: float | None = None
    """Price of a million prompt tokens; null: costs are not counted."""
    price_out: float | None = None
    """Price of a million generated tokens."""
    tensor_parallel: int = 1
    """GPUs that share the model, with vllm."""
    processes: int = 1
    """Processes on this machine, one GPU each."""
    max_batch_tokens: int | None = None
    """Padded tokens in a batch; null: 1024, on CUDA 16384, in vllm 262144 (generation: × 8)."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the weights; null: float32 on a CPU, bfloat16 on CUDA."""
    device: str | None = None
    """For example cpu or cuda:0; null: CUDA if available."""


_AT_LEAST_ONE = (
    "limit",
    "num_samples",
    "max_new_tokens",
    "thinking_budget",
    "max_batch_tokens",
    "top_logprobs",
    "concurrency",
    "processes",
    "tensor_parallel",
)


def check_recipe(options: Recipe) -> Protocol:
    """Check numbers, backend and adapter; return the protocol with the recipe's settings.

    Raises:
        UsageError: a value is wrong, or two exclude each other.
        DataError: the adapter is not one.
    """
    for name in _AT_LEAST_ONE:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    if not options.model and options.backend != "openai":
        raise UsageError("--model names no model")
    if options.permute_options is not None and options.permute_options < 2:
        raise UsageError("--permute-options must be at least 2: the original order is one of them")
    seeds = options.fewshot_seeds
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
        raise UsageError("--fewshot-seeds must name one seed or several different ones")
    settings = _protocol(options)
    _check_backend(options)
    endpoint_settings.check(options, settings)
    if options.adapter is not None:
        model_folder.check_adapter(options.adapter)
    return settings


_PROTOCOL_KEYS = (
    "num_fewshot",
    "num_samples",
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "chat_template",
    "fewshot_as_multiturn",
    "chat_template_kwargs",
    "answer_format",
    "thinking_budget",
    "budget_forcing",
)
"""Keys that replace the protocol's attributes of the same name as they are."""
_GUIDING_BACKENDS = ("vllm", "openai")


def _protocol(options: Recipe) -> Protocol:
    """Return the protocol with the recipe's settings.

    Raises:
        UsageError: it does not support one of them.
    """
    overrides = _overrides(options)
    if options.guided_decoding and options.backend not in _GUIDING_BACKENDS:
        raise UsageError(
            f"--guided-decoding: --backend {options.backend} has no guided decoding;"
            f" {' and '.join(_GUIDING_BACKENDS)} have it"
        )
    protocol = get_protocol(options.protocol, guided_decoding=options.guided_decoding, **overrides)
    if protocol.chat_template not in (conversation.NO_TEMPLATE, conversation.OWN_TEMPLATE):
        conversation.read_template(protocol.chat_template)
    if protocol.answer_format != "json" or options.guided_decoding is not None:
        return protocol
    can_guide = options.backend in _GUIDING_BACKENDS and not protocol.chain_of_thought
    if options.backend == "openai" and options.route != "chat":
        can_guide = False
    if not can_guide:
        logger.info("JSON answers are asked for, not forced: no guided decoding here")
    return replace(protocol, guided_decoding=can_guide)


def _overrides(options: Recipe) -> dict[str, Any]:
    """Return the recipe's settings that replace the protocol's; None for the protocol's own.

    Raises:
        UsageError: a value is wrong.
    """
    overrides = {key: getattr(options, key) for key in _PROTOCOL_KEYS}
    if not protocol_generates(options):  # the length of tasks that generate under any protocol
        del overrides["max_new_tokens"]
    if options.fewshot_seeds is not None:
        overrides["fewshot_seeds"] = tuple(options.fewshot_seeds)
    if options.system_prompt is not None:
        overrides["system_prompt"] = _system_prompt(options.system_prompt)
    if options.thinking_markers is not None:
        if len(options.thinking_markers) != 2:
            raise UsageError("--thinking-markers takes two texts, OPEN and CLOSE")
        overrides["thinking_markers"] = tuple(options.thinking_markers)
    return overrides


def protocol_generates(options: Recipe) -> bool:
    """Return whether answers are generated under the recipe's protocol."""
    return get_protocol(options.protocol).scoring == "generation"


def _system_prompt(text: str) -> str:
    """Return a system prompt; `@FILE` stands for the content of a file.

    Raises:
        UsageError: the file is missing or not UTF-8.
    """
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--system-prompt: {text[1:]}: {one_line(error)}") from None


def _check_backend(options: Recipe) -> None:
    if options.backend != "vllm":
        if options.tensor_parallel > 1:
            raise UsageError("--tensor-parallel goes with --backend vllm")
        return
    if len(options.model) > 1 or options.iterations is not None:
        raise UsageError(
            "--backend vllm scores one model a call: vLLM does not free a GPU's memory before it"
            " ends"
        )
    if options.processes > 1 or options.device:
        raise UsageError(
            "--backend vllm chooses its GPUs: leave out --processes and --device, and see"
            " --tensor-parallel"
        )
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(f"--backend vllm: vLLM is not installed; {install('vllm')}")
