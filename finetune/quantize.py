"""Quantize a model and measure size, memory, speed and accuracy.

    galen quantize --model MODEL --methods bnb4,bnb8 --questions test.jsonl \\
        --output QUANTIZED
    galen quantize --model MODEL --methods awq,gptq,int8 \\
        --calibration train.jsonl --questions test.jsonl --output QUANTIZED

awq and gptq: 4 bit in groups of 128 weights, 64 or 32 where 128 does not divide the layers; int8: 8
bit a channel (all by llmcompressor, read by vLLM, too); bnb4: NF4, bnb8: LLM.int8 (by
bitsandbytes). Each writes QUANTIZED/METHOD, which transformers loads. QUANTIZED/table.md has size,
memory, speed and accuracy beside the original, all measured on this machine. A method that is
already complete is not repeated.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from evaluation.backends import model_folder
from evaluation.prompts.registry import get_template
from evaluation.question_sets import jsonl, question
from evaluation.question_sets.question import Question
from finetune.data import record
from finetune.data.record import Conversation, PromptCompletion, Record
from finetune.parallel import processes
from galen import checksums, cli, json_file, links, lock, manifest, pretrained
from galen.atomic import atomic_folder, write_text
from galen.errors import DataError, UsageError, one_line
from galen.run_folder import RunFolder
from galen.run_identity import Identity


def main(argv: list[str] | None = None) -> int | None:
    """Quantize and measure as the command line asks."""
    arguments = _parser().parse_args(argv)
    methods = list(
        dict.fromkeys(filter(None, (part.strip() for part in arguments.methods.split(","))))
    )
    if not methods:
        raise UsageError("--methods names no method")
    for name in ("samples", "max_length", "limit"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    model = model_folder.check_model(arguments.model)
    links.check_folder(model)
    get_template(arguments.protocol)
    questions = (
        question.sample_questions(question.read(arguments.questions), arguments.limit)
        if arguments.questions
        else []
    )
    texts = _texts(arguments.calibration) if arguments.calibration else []
    from evaluation.backends.transformers_backend import quiet
    from finetune.quantization.methods import check_methods, check_model

    check_methods(methods, arguments.calibration is not None)
    check_model(methods, model)
    quiet()
    with lock.hold(arguments.output):
        _write_all(methods, model, questions, texts, arguments)
    return 0


def _write_all(
    methods: list[str],
    model: Path,
    questions: list[Question],
    texts: list[str],
    arguments: argparse.Namespace,
) -> None:
    """Quantize and measure by each method, and write the table."""
    from finetune.quantization import measurement
    from finetune.quantization.methods import METHODS

    hashes = {"model": model_folder.hashes(model, not arguments.no_verify)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    configs: dict[str, dict[str, Any]] = {
        method: {**hashes, "method": method} for method in methods
    }
    for method in methods:
        if METHODS[method].calibrated:
            digest = manifest.sha256(arguments.calibration)
            configs[method] |= {
                "calibration": digest,
                "samples": arguments.samples,
                "max_length": arguments.max_length,
            }
    missing = []
    for method in methods:
        run = RunFolder(arguments.output / method, "quantize")
        if run.finished(Identity(configs[method])) is None:
            missing.append(method)
    measured = {
        "original": _measured(
            model, arguments.output / "original.json", questions, arguments, hashes
        )
    }
    for method in methods:
        folder = arguments.output / method
        if method in missing:
            processes.log_once(f"{method}: quantizing")
            _quantize(method, model, folder, texts, configs[method], arguments)
        measured[method] = _measured(
            folder, arguments.output / f"{method}.json", questions, arguments, configs[method]
        )
    write_text(arguments.output / "table.md", measurement.table(measured))
    print(measurement.table(measured), end="")
    print(f"written to {arguments.output / 'table.md'}")


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="Hugging Face model folder"
    )
    parser.add_argument(
        "--methods", required=True, metavar="A,B", help="awq, gptq, int8, bnb4, bnb8"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="a folder for each method, and table.md",
    )
    parser.add_argument("--no-verify", action="store_true", help=checksums.HELP)
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help='texts for awq and gptq: JSONL with "text", or training records',
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=128,
        metavar="N",
        help="calibration texts to take (default: 128)",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        default=512,
        metavar="N",
        help="tokens of each calibration text (default: 512)",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="multiple-choice questions for the accuracy, JSONL",
    )
    parser.add_argument(
        "--protocol", default="lm_eval", help="prompt template of the questions (default: lm_eval)"
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="take only N of the questions, a sample by hash of their ids",
    )
    return parser


def _quantize(
    method: str,
    model: Path,
    folder: Path,
    texts: list[str],
    config: dict[str, Any],
    arguments: argparse.Namespace,
) -> None:
    from finetune.quantization.methods import write_quantized

    inputs = [
        manifest.describe_file(model / name, digest) for name, digest in config["model"].items()
    ]
    calibration: list[list[int]] = []
    if "calibration" in config:
        inputs.append(manifest.describe_file(arguments.calibration, config["calibration"]))
        calibration = _calibration(model, texts, arguments)
    with atomic_folder(folder) as temporary:
        write_quantized(method, model, temporary, calibration)
        written = sorted(path for path in temporary.iterdir() if path.is_file())
        counts = {
            "calibration_texts": len(calibration),
            "calibration_tokens": sum(map(len, calibration)),
        }
        manifest.write(
            temporary / manifest.NAME,
            stage="quantize",
            inputs=inputs,
            config=config,
            outputs=written,
            counts=counts,
        )


def _measured(
    folder: Path,
    path: Path,
    questions: list[Question],
    arguments: argparse.Namespace,
    config: dict[str, Any],
) -> Any:
    """Return a folder's measurements: those in `path` if of the same inputs, else new ones."""
    from finetune.quantization.measurement import Measurement, measure

    questions_hash = manifest.sha256(arguments.questions) if questions else None
    key = {
        **config,
        "questions": questions_hash,
        "ids": [item.id for item in questions],
        "protocol": arguments.protocol,
    }
    if path.exists():
        stored = json_file.read_object(path)
        try:
            if stored["config"] == key:
                return Measurement(**stored["measured"])
        except (LookupError, TypeError) as error:
            raise DataError(
                f"{path} is damaged ({one_line(error)}); remove it to measure again"
            ) from None
    processes.log_once(f"{folder}: measuring")
    measurement = measure(folder, questions, arguments.protocol)
    write_text(
        path, json.dumps({"config": key, "measured": dataclasses.asdict(measurement)}) + "\n"
    )
    return measurement


def _texts(path: Path) -> list[str]:
    """Return the texts of a JSONL file: its key `text`, or training records as input and answer."""
    first = next(iter(jsonl.records(path)), None)
    if first is not None and "text" in first[1]:
        return [jsonl.text(line, "text", where) for where, line in jsonl.records(path)]
    return [_text(item) for item in record.read(path)]


def _text(item: Record) -> str:
    """Return a training record as input and answer."""
    match item:
        case PromptCompletion():
            return item.prompt + item.completion
        case Conversation():
            return "\n".join(message["content"] for message in item.messages)
    prompt = get_template("lm_eval")(item)
    return prompt.text + prompt.target


def _calibration(model: Path, texts: list[str], arguments: argparse.Namespace) -> list[list[int]]:
    """Return texts spread evenly over the file as token ids."""
    tokenizer = pretrained.load_tokenizer(model)
    step = max(len(texts) // arguments.samples, 1)
    chosen = texts[::step][: arguments.samples]
    return [
        tokenizer.encode(text, truncation=True, max_length=arguments.max_length) for text in chosen
    ]


if __name__ == "__main__":
    cli.run(main)
