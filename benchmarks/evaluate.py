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
meets both; a run with --items that was stopped goes on there.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from evaluation import question_sets
from evaluation.backends import encoding
from evaluation.backends.base import Batching
from evaluation.prompts.registry import get_template
from evaluation.prompts.template import Prompt
from galen import cli, manifest
from galen.errors import UsageError


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        raise UsageError("the peer is missing: pip install 'lm-eval>=0.4.9'") from None
    import torch

    from evaluation.backends.transformers_backend import TransformersBackend

    torch.set_num_threads(arguments.threads)
    questions = question_sets.read(arguments.reader, arguments.questions)
    if arguments.ids is not None:
        questions = question_sets.select(questions, arguments.ids)
    render = get_template(arguments.protocol)
    few_shot = questions[: arguments.num_fewshot]
    asked = questions[arguments.num_fewshot :][: arguments.limit]
    put, ids = [render(item, few_shot) for item in asked], [item.id for item in asked]
    harness = HFLM(
        pretrained=str(arguments.model),
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.batch,
    )
    ours = TransformersBackend(arguments.model, dtype=arguments.dtype, device=arguments.device)

    sides = {"galen": (ours, _ours), "lm_eval": (harness, _theirs)}
    for side, score in sides.values():
        # memory and threads are ready from here on
        score(side, put[: arguments.batch], arguments.batch)
    parts = _read(arguments.items)
    size = arguments.part or len(put)
    for start in range(sum(len(part["questions"]) for part in parts), len(put), size):
        part: dict[str, Any] = {"questions": ids[start : start + size], "seconds": {}}
        for name, (side, score) in sides.items():
            started = time.perf_counter()
            part[name] = score(side, put[start : start + size], arguments.batch)
            part["seconds"][name] = time.perf_counter() - started
        parts.append(part)
        if arguments.items:
            with arguments.items.open("a") as file:
                file.write(json.dumps(part) + "\n")
        shown = ", ".join(
            f"{name} {len(part['questions']) / took:.2f}/s"
            for name, took in part["seconds"].items()
        )
        print(f"{start + len(part['questions'])} of {len(put)} questions; {shown}", flush=True)
    settings = {
        name: getattr(arguments, name) for name in ("protocol", "num_fewshot", "batch", "dtype")
    }
    print(
        json.dumps(
            {"questions": len(put), **settings, **_summary(parts), "versions": manifest.versions()},
            indent=1,
        )
    )


def _summary(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rates of both sides, and how far their log-likelihoods and predictions differ."""
    ours, theirs = (
        [values for part in parts for values in part[name]] for name in ("galen", "lm_eval")
    )
    rates = {
        name: len(ours) / sum(part["seconds"][name] for part in parts)
        for name in ("galen", "lm_eval")
    }
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "questions_per_second": rates,
        "ratio": rates["galen"] / rates["lm_eval"],
        "same_predictions": sum(a.index(max(a)) == b.index(max(b)) for a, b in pairs),
        "largest_difference_nats": max(
            abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)
        ),
    }


def _read(path: Path | None) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path and path.exists()
        else []
    )


def _ours(backend: Any, put: list[Prompt], batch: int) -> list[list[float]]:
    requests = [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in put]
    if backend.context_length:
        requests = [encoding.truncate_left(request, backend.context_length) for request in requests]
    tokens = batch * max(request.input_length for request in requests)
    return [
        values
        for _, values in sorted(
            pair for part in backend.log_likelihoods(requests, Batching(tokens)) for pair in part
        )
    ]


def _theirs(harness: Any, put: list[Prompt], _batch: int) -> list[list[float]]:
    from lm_eval.api.instance import Instance

    pairs = [
        (prompt.text, continuation)
        for prompt in put
        for continuation in prompt.continuations.values()
    ]
    requests = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
    values = iter(harness.loglikelihood(requests, disable_tqdm=True))
    return [[next(values)[0] for _ in prompt.continuations] for prompt in put]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="Hugging Face model folder"
    )
    parser.add_argument(
        "--questions", required=True, metavar="FILE", help="a published question set"
    )
    parser.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="only the questions with these ids, for example test_ground_truth.json",
    )
    parser.add_argument(
        "--reader", required=True, help=f"its layout: {', '.join(question_sets.READERS)}"
    )
    parser.add_argument(
        "--protocol", default="lm_eval", help="lm_eval or lm_eval_continuation (default: lm_eval)"
    )
    parser.add_argument(
        "--num-fewshot",
        type=int,
        default=0,
        metavar="K",
        help="the first K questions are few-shot examples (default: 0)",
    )
    parser.add_argument(
        "--items",
        type=Path,
        metavar="FILE",
        help="JSONL of all log-likelihoods and times, a part a line",
    )
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="questions (default: 100)"
    )
    parser.add_argument(
        "--batch", type=int, default=8, metavar="N", help="rows in a batch (default: 8)"
    )
    parser.add_argument(
        "--dtype", default="float32", help="precision of the weights (default: float32)"
    )
    parser.add_argument("--device", default="cpu", help="for example cuda:0 (default: cpu)")
    parser.add_argument(
        "--threads", type=int, default=2, metavar="N", help="CPU threads (default: 2)"
    )
    parser.add_argument(
        "--part",
        type=int,
        metavar="N",
        help="questions that each side scores in turn (default: all)",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
