"""Options of the commands that ask a judge, and the judge that they select."""

import argparse
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.backends import backend_loading
from evaluation.backends import options as backend_options
from evaluation.backends.endpoint import Endpoint
from evaluation.chat_models import conversation
from evaluation.chat_models import options as chat_options
from evaluation.judging import verdicts
from evaluation.judging.judge import Judge, Reply, open_log
from evaluation.judging.verdicts import Question
from evaluation.protocols.protocol import Protocol
from evaluation.scoring import endpoint_settings, preparation
from evaluation.scoring.recipe import Recipe, check_recipe
from galen import run_folder
from galen.errors import UsageError
from galen.run_identity import Identity

logger = logging.getLogger(__name__)
_OWN = ("judge_prompt", "verdict", "guided_decoding", "estimate_only", "max_new_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeSettings:
    """A judge, checked and not yet loaded."""

    recipe: Recipe
    protocol: Protocol
    endpoint: Endpoint | None
    template: str
    is_generated: bool
    is_guided: bool
    max_new_tokens: int

    @property
    def name(self) -> str:
        """The judge's name in tables."""
        if self.endpoint is not None:
            return self.endpoint.model_name
        return self.recipe.model[0].resolve().name

    def identity(self) -> dict[str, Any]:
        """Return what decides the verdicts; hashes the model."""
        model = Path() if self.endpoint is not None else self.recipe.model[0]
        return {
            "judge": preparation.model_identity(self.recipe, self.endpoint, model, self.name),
            "backend": self.recipe.backend,
            "dtype": self.recipe.dtype,
            "prompt_sha256": hashlib.sha256(self.template.encode()).hexdigest(),
            "verdict": "json" if self.is_generated else "yes_no",
            "guided_decoding": self.is_guided,
            "max_new_tokens": self.max_new_tokens,
            "chat_template": self.protocol.chat_template,
            "chat_template_kwargs": dict(self.protocol.chat_template_kwargs),
            "system_prompt": self.protocol.system_prompt,
        }

    def warn_of_own_answers(self, models: Sequence[str]) -> None:
        """Warn where the judge has the name of a model that it judges."""
        if self.name in models:
            logger.warning(f"{self.name} judges its own answers, which judges tend to prefer")

    def bind(self) -> dict[str, Any]:
        """Bind the output folder to this judge; return its identity.

        Raises:
            OutputConflictError: the folder belongs to another judge.
        """
        identity = self.identity()
        run_folder.bind(self.recipe.output, Identity(identity))
        return identity

    def verdicts(self, judge: Judge, questions: Sequence[Question], repeat: int = 0) -> list[Reply]:
        """Return this judge's verdict on each criterion."""
        return verdicts.ask(judge, questions, self.template, self.is_generated, repeat)

    def estimate(self, judge: Judge, questions: Sequence[Question], repeats: int = 1) -> str:
        """Return in words how much this judge will be asked about criteria.

        Raises:
            DataError: a question does not fit the judge's context.
        """
        texts = [question.text(self.template) for question in questions]
        judge.check_lengths(texts, self.is_generated)
        return judge.estimate(texts, repeats if self.is_generated else None)

    def load(self) -> Judge:
        """Load the judge."""
        backend = backend_loading.load(
            self.recipe.backend,
            Path() if self.endpoint is not None else self.recipe.model[0],
            folder=self.recipe.output,
            endpoint=self.endpoint,
            dtype=self.recipe.dtype,
            device=self.recipe.device,
            tensor_parallel=self.recipe.tensor_parallel,
        )
        return Judge(
            backend=backend,
            conversation=conversation.create(self.protocol, backend.tokenizer),
            is_guided=self.is_guided,
            max_new_tokens=self.max_new_tokens,
            log=open_log(self.recipe.output),
            batch_tokens=self.recipe.max_batch_tokens or 8 * backend.batch_tokens,
        )


def add_answer_options(parser: argparse.ArgumentParser, task_help: str) -> None:
    """Add the options that select the answers; `task_help` is the help of --task."""
    parser.add_argument(
        "run", type=Path, nargs="+", metavar="RUN", help="output folders of `galen evaluate`"
    )
    parser.add_argument("--task", required=True, metavar="NAME", help=task_help)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that contains the task's files",
    )


def add_options(parser: argparse.ArgumentParser, needs_output: bool = True) -> None:
    """Add the options that select the judge."""
    parser.add_argument(
        "--output",
        type=Path,
        required=needs_output,
        metavar="DIR",
        help="the judge's folder: its verdicts, scores and agreement; of one judge only",
    )
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="Hugging Face folder of a local judge"
    )
    parser.add_argument(
        "--verdict",
        choices=("json", "yes_no"),
        help=(
            "generate JSON with an explanation, or compare the likelihoods of Yes and No (default:"
            " yes_no with transformers, else json)"
        ),
    )
    parser.add_argument(
        "--judge-prompt",
        type=Path,
        metavar="FILE",
        help=(
            "another wording of the question, with <<conversation>> and <<criterion>> or"
            " <<rubric_item>> (the criterion after its points)"
        ),
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=1024,
        metavar="N",
        help="maximum length of the judge's reply, thinking included (default: 1024)",
    )
    parser.add_argument(
        "--guided-decoding",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="force the JSON of replies, with vllm and at endpoints (default: yes)",
    )
    parser.add_argument("--system-prompt", metavar="TEXT|@FILE", help="system message of the judge")
    chat_options.add_template_options(parser)
    parser.add_argument(
        "--estimate-only",
        action="store_true",
        help="print how much the judge would be asked, with the cost, and stop",
    )
    backend_options.add_backend_options(parser)
    backend_options.add_endpoint_options(parser)


def settings(options: argparse.Namespace, asks_pairs: bool = False) -> JudgeSettings:
    """Return the judge that a command line selects.

    Args:
        options: parsed.
        asks_pairs: whether it compares answers, for which it must generate.

    Raises:
        UsageError: it selects none, or an option is wrong.
    """
    _check(options, asks_pairs)
    verdict = "json" if asks_pairs else options.verdict or _default_verdict(options.backend)
    is_generated = verdict == "json"
    recipe = _recipe(options)
    protocol = check_recipe(recipe)
    if is_generated:
        protocol = replace(protocol, enable_thinking=None)
        template = verdicts.JSON_PROMPT
    else:
        protocol = replace(protocol, scoring="letter")
        template = verdicts.YES_NO_PROMPT
    if options.judge_prompt is not None:
        template = verdicts.read_template(options.judge_prompt)
    return JudgeSettings(
        recipe=recipe,
        protocol=protocol,
        endpoint=endpoint_settings.endpoint(recipe, protocol),
        template=template,
        is_generated=is_generated,
        is_guided=is_generated and options.guided_decoding and _can_guide(options),
        max_new_tokens=options.max_new_tokens,
    )


def _check(options: argparse.Namespace, asks_pairs: bool) -> None:
    """Raise UsageError for options that exclude each other."""
    if options.model is None and options.backend != "openai":
        raise UsageError("which judge? give --model DIR, or --backend openai with an endpoint")
    if options.processes > 1:
        raise UsageError("a judge runs in one process: leave out --processes")
    if options.verdict == "yes_no" and options.backend == "openai":
        raise UsageError("--verdict yes_no needs the likelihoods of a local model: give json")
    if asks_pairs and (options.verdict == "yes_no" or options.judge_prompt is not None):
        raise UsageError("--verdict yes_no and --judge-prompt are for criteria, not for pairs")


def _recipe(options: argparse.Namespace) -> Recipe:
    """Return the options that a judge shares with an evaluated model."""
    own = {*_OWN, "model", "data", "tasks"}
    shared = Recipe.__dataclass_fields__.keys() & vars(options).keys() - own
    return Recipe(
        model=[] if options.model is None else [options.model],
        tasks=[],
        data=Path(),
        protocol="chat",
        guided_decoding=False,
        max_new_tokens=options.max_new_tokens,
        **{name: getattr(options, name) for name in shared},
    )


def _can_guide(options: argparse.Namespace) -> bool:
    """Return whether the backend can force the JSON of replies."""
    if options.backend == "openai":
        return bool(options.route == "chat")
    return bool(options.backend == "vllm")


def _default_verdict(backend: str) -> str:
    return "yes_no" if backend == "transformers" else "json"
