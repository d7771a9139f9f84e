"""Questions per second of Galen and of lm-evaluation-harness, in one process.

On the same questions, with the same model, precision and batch.

    python benchmarks/evaluate.py --model MODEL --questions pubmedqa/ori_pqal.json \\
        --ids pubmedqa/test_ground_truth.json --reader pubmedqa --limit 500 --part 25 \\
        --items pubmedqa.jsonl
    python benchmarks/evaluate.py --model MODEL --questions data/mmlu/test --reader mmlu \\
        --protocol lm_eval --num-fewshot 5

Both get the same prompts and continuations and give the log-likelihood of each; the predictions are
compared too. The harness runs with its own `batch_size`; Galen's batches hold at most as many
tokens as one of its batches of the longest prompts. Loading the model and a first batch are not
counted, tokenizing is. The sides take turns, part by part, so that another load of the machine
affects both; an interrupted run with --items resumes.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from evaluation import question_sets
from evaluation.backends import encoding
from evaluation.backends.base import Batching
from evaluation.prompts.registry import get_template
from evaluation.prompts.template import Prompt
from galen import cli, manifest
from galen.errors import UsageError

SIDES = ("galen", "lm_eval")


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    ids, prompts = _prompts(arguments)
    sides = _load_sides(arguments)
    for score in sides.values():
        score(prompts[: arguments.batch])  # memory and threads are ready afterwards
    parts = _read(arguments.items)
    size = arguments.part or len(ids)
    for start in range(sum(len(part["questions"]) for part in parts), len(ids), size):
        part: dict[str, Any] = {"questions": ids[start : start + size], "seconds": {}}
        for name, score in sides.items():
            started = time.perf_counter()
            part[name] = score(prompts[start : start + size])
            part["seconds"][name] = time.perf_counter() - started
        parts.append(part)
        if arguments.items:
            with arguments.items.open("a") as file:
                file.write(json.dumps(part) + "\n")
        count = len(part["questions"])
        rates = [f"{name} {count / seconds:.2f}/s" for name, seconds in part["seconds"].items()]
        print(f"{start + count} of {len(ids)} questions; {', '.join(rates)}", flush=True)
    result: dict[str, Any] = {"questions": len(ids)}
    result |= {
        name: getattr(arguments, name) for name in ("protocol", "num_fewshot", "batch", "dtype")
    }
    result |= {**_summary(parts), "versions": manifest.versions()}
    print(json.dumps(result, indent=1))


def _prompts(arguments: argparse.Namespace) -> tuple[list[str], list[Prompt]]:
    """Return the ids of the questions, and their prompts."""
    questions = question_sets.read(arguments.reader, arguments.questions)
    if arguments.ids is not None:
        questions = question_sets.select(questions, arguments.ids)
    render = get_template(arguments.protocol)
    few_shot = questions[: arguments.num_fewshot]
    chosen = questions[arguments.num_fewshot :][: arguments.limit]
    ids = [question.id for question in chosen]
    return ids, [render(question, few_shot) for question in chosen]


def _load_sides(
    arguments: argparse.Namespace,
) -> dict[str, Callable[[list[Prompt]], list[list[float]]]]:
    """Load both programs' models; return a function for each that scores prompts."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        raise UsageError("lm-eval is missing: pip install 'lm-eval>=0.4.9'") from None
    import torch

    from evaluation.backends.transformers_backend import TransformersBackend

    torch.set_num_threads(arguments.threads)
    harness = HFLM(
        pretrained=str(arguments.model),
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.batch,
    )
    backend = TransformersBackend(arguments.model, dtype=arguments.dtype, device=arguments.device)
    return {
        "galen": partial(_score_galen, backend, arguments.batch),
        "lm_eval": partial(_score_harness, harness),
    }


def _summary(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rates of both sides, and how far their log-likelihoods and predictions differ."""
    values: dict[str, list[list[float]]] = {name: [] for name in SIDES}
    seconds = dict.fromkeys(SIDES, 0.0)
    for part in parts:
        for name in SIDES:
            values[name] += part[name]
            seconds[name] += part["seconds"][name]
    rates = {name: len(values[name]) / seconds[name] for name in SIDES}
    same_predictions = 0
    largest_difference = 0.0
    for ours, theirs in zip(values["galen"], values["lm_eval"], strict=True):
        same_predictions += ours.index(max(ours)) == theirs.index(max(theirs))
        differences = [abs(x - y) for x, y in zip(ours, theirs, strict=True)]
        largest_difference = max(largest_difference, *differences)
    return {
        "questions_per_second": rates,
        "ratio": rates["galen"] / rates["lm_eval"],
        "same_predictions": same_predictions,
        "largest_difference_nats": largest_difference,
    }


def _read(path: Path | None) -> list[dict[str, Any]]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _score_galen(backend: Any, batch: int, prompts: list[Prompt]) -> list[list[float]]:
    """Return the log-likelihoods of each prompt's continuations."""
    requests = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompts]
    if backend.context_length:
        requests = [encoding.truncate_left(request, backend.context_length) for request in requests]
    tokens = batch * max(request.input_length for request in requests)
    scored = {}
    for pairs in backend.log_likelihoods(requests, Batching(tokens)):
        scored.update(pairs)
    return [scored[index] for index in range(len(requests))]


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


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="Hugging Face model folder")
    add("--questions", required=True, metavar="FILE", help="a published question set")
    add(
        "--ids",
        type=Path,
        metavar="FILE",
        help="only the questions with these ids, for example test_ground_truth.json",
    )
    readers = ", ".join(question_sets.READERS)
    add("--reader", required=True, help=f"format of the questions: {readers}")
    add("--protocol", default="lm_eval", help="lm_eval or lm_eval_continuation [lm_eval]")
    add(
        "--num-fewshot",
        type=int,
        default=0,
        metavar="K",
        help="use the first K questions as few-shot examples [0]",
    )
    add(
        "--items",
        type=Path,
        metavar="FILE",
        help="JSONL of all log-likelihoods and times, one part per line",
    )
    add("--limit", type=int, default=100, metavar="N", help="number of questions [100]")
    add("--batch", type=int, default=8, metavar="N", help="rows in a batch [8]")
    add("--dtype", default="float32", help="precision of the weights [float32]")
    add("--device", default="cpu", help="for example cuda:0 [cpu]")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads [2]")
    add("--part", type=int, metavar="N", help="questions that each side scores in turn [all]")
    return parser


if __name__ == "__main__":
    cli.run(main)
