"""Questions per second of Galen and of lm-evaluation-harness, in one process.

On the same prompts, with the same model, precision and batch.

    python benchmarks/evaluate.py --model MODEL --task mmlu_anatomy --data DATA --num-fewshot 5
    python benchmarks/evaluate.py --model MODEL --task pubmedqa --data DATA --limit 500 --part 25 \\
        --items pubmedqa.jsonl
    python benchmarks/evaluate.py --model MODEL --task gsm8k_cot --data DATA --num-fewshot 8

The prompts and continuations are those that the harness builds from its own task file; DATA is a
folder of data sets as for `galen evaluate --tasks lm_eval:NAME`, for example
`DATA/cais/mmlu/anatomy/test.jsonl` and `dev.jsonl`. Galen's own prompts for the same rows are
counted where they are equal (`galen_prompts_equal`; null for tasks that Galen has not). Few-shot
examples are the first ones of their split on both sides.

Both give the log-likelihood of each continuation, or the text of a generation task; the predictions
or texts are compared, too. The harness runs with `--batch` as its `batch_size`; Galen's batches
hold at most as many tokens as one of its batches of the longest prompts. With `--batch default`
both use their defaults, the harness a batch of 1 and Galen one by tokens. Loading the model and a
first batch (of a generation task: one prompt) are not counted, tokenizing is. The sides take turns,
part by part, so that another load of the machine affects both. On a busy machine the ratio of
processor times, as the median of parts, is more robust than that of wall times. An interrupted run
with --items resumes.
"""

import argparse
import fnmatch
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evaluation import question_sets
from evaluation.backends import encoding
from evaluation.backends.base import Batching
from evaluation.harness.benchmark import Benchmark
from evaluation.prompts.registry import get_template
from evaluation.prompts.template import Prompt
from evaluation.question_sets.question import Question
from evaluation.question_sets.rows import Row
from evaluation.tasks.task import LmEvalTask
from galen import cli, manifest
from galen.errors import UsageError

SIDES = ("galen", "lm_eval")
_DEFAULT_MAX_NEW_TOKENS = 256
"""Of the harness' `hf` model."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """How Galen reads and asks a task of the harness."""

    reader: str
    protocol: str = "lm_eval"


COUNTERPARTS = {
    "mmlu_*_continuation": Counterpart("mmlu", "lm_eval_continuation"),
    "mmlu_*": Counterpart("mmlu"),
    "medqa_4options": Counterpart("medqa"),
    "medmcqa": Counterpart("medmcqa"),
    "pubmedqa": Counterpart("pubmedqa"),
    "headqa_*": Counterpart("headqa"),
    "truthfulqa_mc1": Counterpart("truthfulqa"),
}
"""Tasks of the harness that Galen has, too, by patterns of their names."""


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # a script's folder is on the path, where this file would hide the package `evaluate`
    folder = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != folder]
    task = load_task(arguments.task, arguments.data, arguments.num_fewshot, arguments.limit)
    generates = task.OUTPUT_TYPE == "generate_until"
    equal = None
    prompts: list[Any] = task.instances
    if not generates:
        prompts = harness_prompts(task)
        equal = galen_prompts_equal(arguments.task, task, prompts, arguments.num_fewshot)
    sides = _load_sides(arguments, generates)
    warm_up = prompts[: 1 if generates else arguments.batch or 8]
    for score in sides.values():
        score(warm_up)  # memory and threads are ready afterwards
    settings = {name: getattr(arguments, name) for name in ("task", "num_fewshot", "dtype")}
    parts = _read(arguments.items, settings)
    size = arguments.part or len(prompts)
    for start in range(sum(part["questions"] for part in parts), len(prompts), size):
        chosen = prompts[start : start + size]
        part: dict[str, Any] = {**settings, "questions": len(chosen)}
        part |= {"seconds": {}, "cpu_seconds": {}}
        for name, score in sides.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            part[name] = score(chosen)
            part["seconds"][name] = time.perf_counter() - started
            part["cpu_seconds"][name] = time.process_time() - cpu_started
        parts.append(part)
        if arguments.items:
            with arguments.items.open("a") as file:
                file.write(json.dumps(part) + "\n")
        rates = [
            f"{name} {len(chosen) / seconds:.2f}/s" for name, seconds in part["seconds"].items()
        ]
        print(f"{start + len(chosen)} of {len(prompts)} questions; {', '.join(rates)}", flush=True)
    result: dict[str, Any] = {"questions": len(prompts), "galen_prompts_equal": equal}
    result |= {**settings, "batch": arguments.batch or "default"}
    result |= _speeds(parts)
    result |= _same_answers(parts) if generates else _same_scores(parts)
    result |= {"versions": manifest.versions()}
    print(json.dumps(result, indent=1))


def load_task(name: str, data: Path, num_fewshot: int = 0, limit: int | None = None) -> Any:
    """Return a task of the installed harness with its requests, over local rows of its data set.

    Args:
        name: a multiple-choice or generation task of the harness.
        data: folder of data sets, as for `galen evaluate --tasks lm_eval:NAME`.
        num_fewshot: few-shot examples, the first ones of their split.
        limit: build requests only for the first so many documents.

    Raises:
        UsageError: lm-eval is not installed, or has no such task.
        DataError: the data set is missing or damaged.
    """
    benchmark = Benchmark(LmEvalTask(kind="lm_eval", task=name, num_fewshot=num_fewshot), data)
    if list(benchmark.tasks) != [name]:
        raise UsageError(
            f"{name} is a group; give one of its tasks, such as {min(benchmark.tasks)}"
        )
    task = benchmark.tasks[name]
    if task.OUTPUT_TYPE not in ("multiple_choice", "generate_until"):
        raise UsageError(f"{name} is neither a multiple-choice nor a generation task")
    if num_fewshot:
        from lm_eval.api.samplers import FirstNSampler

        task.sampler = FirstNSampler(list(task.fewshot_docs()))
    task.build_all_requests(limit=limit)
    return task


def harness_prompts(task: Any) -> list[Prompt]:
    """Return the prompt of each document with its continuations, as the harness built them."""
    prompts: dict[int, Prompt] = {}
    for instance in task.instances:
        context, continuation = instance.args
        prompt = prompts.setdefault(instance.doc_id, Prompt(context, {}))
        prompt.continuations[str(instance.idx)] = continuation
    return [prompts[number] for number in sorted(prompts)]


def galen_prompts_equal(
    name: str, task: Any, prompts: list[Prompt], num_fewshot: int = 0
) -> int | None:
    """Return how many of the harness' prompts are also Galen's, read from the same rows.

    Continuations may be in another order. None if Galen has no such task.
    """
    found = next((key for key in COUNTERPARTS if fnmatch.fnmatch(name, key)), None)
    if found is None:
        return None
    counterpart = COUNTERPARTS[found]
    render = get_template(counterpart.protocol)
    few_shot: list[Question] = []
    if num_fewshot:
        few_shot = _questions(counterpart, name, list(task.fewshot_docs())[:num_fewshot])
    questions = _questions(counterpart, name, list(task.eval_docs)[: len(prompts)])
    equal = 0
    for question, expected in zip(questions, prompts, strict=True):
        prompt = render(question, few_shot)
        same_text = prompt.text == expected.text
        ours, theirs = (sorted(item.continuations.values()) for item in (prompt, expected))
        equal += same_text and ours == theirs
    return equal


def _questions(counterpart: Counterpart, name: str, docs: list[dict[str, Any]]) -> list[Question]:
    reader = question_sets.reader(counterpart.reader)
    questions = []
    for number, doc in enumerate(docs, start=1):
        # the language of HEAD-QA is in the name of its configuration
        row = Row(dict(doc), f"{name}, document {number}", name.rpartition("_")[2], number)
        question = reader.convert(row)
        if not isinstance(question, Question):
            raise row.wrong("Galen skips this document")
        questions.append(question)
    return questions


def _load_sides(
    arguments: argparse.Namespace, generates: bool
) -> dict[str, Callable[[list[Any]], list[Any]]]:
    """Load both programs' models; return a function for each that scores or continues prompts."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from evaluation.backends.transformers_backend import TransformersBackend
    from evaluation.harness.lm import BackendLM

    torch.set_num_threads(arguments.threads)
    harness = HFLM(
        pretrained=str(arguments.model),
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.batch or 1,
    )
    backend = TransformersBackend(arguments.model, dtype=arguments.dtype, device=arguments.device)
    if generates:
        return {
            "galen": partial(_generate_galen, BackendLM(backend), arguments.batch),
            "lm_eval": partial(harness.generate_until, disable_tqdm=True),
        }
    return {
        "galen": partial(_score_galen, backend, arguments.batch),
        "lm_eval": partial(_score_harness, harness),
    }


def _speeds(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rates of both sides, and the ratios of their wall and processor times."""
    questions = sum(part["questions"] for part in parts)
    seconds = {name: sum(part["seconds"][name] for part in parts) for name in SIDES}
    ratios = [part["cpu_seconds"]["lm_eval"] / part["cpu_seconds"]["galen"] for part in parts]
    return {
        "questions_per_second": {name: questions / seconds[name] for name in SIDES},
        "ratio": seconds["lm_eval"] / seconds["galen"],
        "cpu_time_ratio_median": statistics.median(ratios),
        "cpu_time_ratios": ratios,
    }


def _same_answers(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many generated texts are the same."""
    same = 0
    for part in parts:
        pairs = zip(part["galen"], part["lm_eval"], strict=True)
        same += sum(ours == theirs for ours, theirs in pairs)
    return {"same_answers": same}


def _same_scores(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how far the log-likelihoods and predictions of both sides differ."""
    same_predictions = 0
    largest_difference = 0.0
    for part in parts:
        for ours, theirs in zip(part["galen"], part["lm_eval"], strict=True):
            same_predictions += ours.index(max(ours)) == theirs.index(max(theirs))
            differences = [abs(x - y) for x, y in zip(ours, theirs, strict=True)]
            largest_difference = max(largest_difference, *differences)
    return {
        "same_predictions": same_predictions,
        "largest_difference_nats": largest_difference,
    }


def _read(path: Path | None, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts that an interrupted run has scored.

    Raises:
        UsageError: they are of another task or have other settings.
    """
    if path is None or not path.exists():
        return []
    parts: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    for part in parts:
        if any(part.get(name) != value for name, value in settings.items()):
            raise UsageError(f"{path} holds parts of another task or with other settings")
    return parts


def _score_galen(backend: Any, batch: int | None, prompts: list[Prompt]) -> list[list[float]]:
    """Return the log-likelihoods of each prompt's continuations."""
    requests = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompts]
    if backend.context_length:
        requests = [encoding.truncate_left(request, backend.context_length) for request in requests]
    tokens = backend.batch_tokens
    if batch is not None:
        tokens = batch * max(request.input_length for request in requests)
    scored = {}
    for pairs in backend.log_likelihoods(requests, Batching(tokens)):
        scored.update(pairs)
    return [scored[index] for index in range(len(requests))]


def _generate_galen(lm: Any, batch: int | None, instances: list[Any]) -> list[str]:
    """Return the text that Galen generates for each request of the harness."""
    tokens = lm.galen_backend.batch_tokens
    if batch is not None:
        longest = max(len(lm.tok_encode(instance.args[0])) for instance in instances)
        limits = [
            instance.args[1].get("max_gen_toks", _DEFAULT_MAX_NEW_TOKENS) for instance in instances
        ]
        tokens = batch * (longest + max(limits))
    batching = Batching(tokens)
    texts: dict[int, str] = {}
    for answers in lm.answer([[instance] for instance in instances], batching, repeats=1):
        texts.update({index: responses[0][0] for index, responses in answers})
    return [texts[index] for index in range(len(instances))]


def _score_harness(harness: Any, prompts: list[Prompt]) -> list[list[float]]:
    """Return the same by lm-evaluation-harness."""
    from lm_eval.api.instance import Instance

    requests: list[Instance] = []
    for prompt in prompts:
        for continuation in prompt.continuations.values():
            pair = (prompt.text, continuation)
            requests.append(Instance("loglikelihood", {}, pair, len(requests)))
    values = iter(harness.loglikelihood(requests, disable_tqdm=True))
    scores = []
    for prompt in prompts:
        scores.append([next(values)[0] for _ in prompt.continuations])
    return scores


def _batch(text: str) -> int | None:
    """Return the rows of a batch, None for each program's default."""
    if text == "default":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive number or `default`, not {text!r}")
    return int(text)


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="Hugging Face model folder")
    add("--task", required=True, help="a multiple-choice or generation task of the harness")
    add(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="data sets, a file for each split: DIR/cais/mmlu/anatomy/test.jsonl",
    )
    add(
        "--num-fewshot",
        type=int,
        default=0,
        metavar="K",
        help="few-shot examples, the first K of their split [0]",
    )
    add(
        "--items",
        type=Path,
        metavar="FILE",
        help="JSONL of all log-likelihoods and times, one part per line",
    )
    add("--limit", type=int, default=100, metavar="N", help="number of questions [100]")
    add(
        "--batch",
        type=_batch,
        default=8,
        metavar="N",
        help="rows in a batch, or `default`: each program's own [8]",
    )
    add("--dtype", default="float32", help="precision of the weights [float32]")
    add("--device", default="cpu", help="for example cuda:0 [cpu]")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads [2]")
    add("--part", type=int, metavar="N", help="questions that each side scores in turn [all]")
    return parser


if __name__ == "__main__":
    cli.run(main)
