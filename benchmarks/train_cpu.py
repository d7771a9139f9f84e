"""Compare training speed of Galen and Hugging Face's Trainer, on one process.

Both train the same weights with the same batch, precision and threads, in one run.

    python benchmarks/train_cpu.py --size 20m --sequence 512 --micro-batch 2 --accumulation 2 \\
        --precision fp32 --steps 8

A random model of the size (20m, 60m, 135m: the last has the shape of SmolLM2-135M) reads random
tokens. The two take turns, --rounds times, so that another load on the machine affects both. A
run's figure is the median over its steps after the first --warm-up, optimizer included, start-up
excluded; a round's ratio is that of its two runs. --output writes all figures to a file.
"""

import argparse
import dataclasses
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from galen import cli, manifest
from galen.atomic import write_text

ROOT = Path(__file__).parents[1]
SEED = 1234


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Sizes of a random Llama."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


SIZES = {
    "20m": ModelSize(256, 768, 8, 8, 4, 32000),
    "60m": ModelSize(448, 1216, 16, 7, 7, 32000),
    "135m": ModelSize(576, 1536, 30, 9, 3, 49152),
}


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    if arguments.trainer:
        train_with_trainer(Path(arguments.trainer), arguments)
        return None
    speeds: dict[str, list[float]] = {"galen": [], "trainer": []}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="train_cpu_") as folder:
        work = Path(folder)
        prepare(work, arguments)
        for number in range(arguments.rounds):
            for name, measure in (("galen", galen), ("trainer", trainer)):
                rates, losses[name] = measure(work, number, arguments)
                speeds[name].append(statistics.median(rates))
                print(
                    f"{name}: {speeds[name][-1]:,.0f} tokens/s, first loss {losses[name]:.4f}",
                    file=sys.stderr,
                    flush=True,
                )
    pairs = zip(speeds["galen"], speeds["trainer"], strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    result: dict[str, Any] = {
        "command": shlex.join(sys.argv),
        "options": vars(arguments),
        "threads": threads(),
        "first_loss": losses,
        "tokens_per_second": speeds,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "versions": manifest.versions(),
        "processor": processor(),
    }
    text = json.dumps(result, indent=1, default=str)
    print(text)
    if arguments.output:
        write_text(arguments.output, text + "\n")
    return None


def processor() -> str:
    """Return the processor's name and the extensions that bf16 and fp32 products use."""
    fields: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    flags = fields.get("flags", "").split()
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return " ".join([fields.get("model name", platform.machine()), *extensions])


def prepare(work: Path, arguments: argparse.Namespace) -> None:
    """Write the model in both formats, and the tokens."""
    import numpy
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
    from transformers import LlamaConfig, LlamaForCausalLM

    size = SIZES[arguments.size]
    torch.manual_seed(SEED)
    config = LlamaConfig(
        **dataclasses.asdict(size),
        max_position_embeddings=arguments.sequence,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(work / "hf")
    run("checkpoints_convert/hf_to_megatron.py", "--hf", work / "hf", "--output", work / "megatron")
    count = (arguments.steps + 1) * batch(arguments) * arguments.sequence
    tokens = numpy.random.default_rng(SEED).integers(0, size.vocab_size, count)
    builder = IndexedDatasetBuilder(str(work / "tokens.bin"), dtype=numpy.uint16)
    builder.add_document(tokens, [len(tokens)])
    builder.finalize(str(work / "tokens.idx"))
    numpy.save(work / "tokens.npy", tokens)


def batch(arguments: argparse.Namespace) -> int:
    """Return the sequences of a step."""
    return arguments.micro_batch * arguments.accumulation


def galen(work: Path, number: int, arguments: argparse.Namespace) -> tuple[list[float], float]:
    """Train with Galen; return the tokens per second of each measured step and the first loss."""
    output = work / f"galen{number}"
    recipe = {
        "output": str(output),
        "model": {"checkpoint": str(work / "megatron")},
        "data": {
            "train": [str(work / "tokens")],
            "seq_length": arguments.sequence,
            "num_workers": 0,
        },
        "training": {
            "train_iters": arguments.steps,
            "micro_batch_size": arguments.micro_batch,
            "global_batch_size": batch(arguments),
            "precision": arguments.precision,
            "eval_iters": 0,
        },
        "optimizer": {"lr": 1e-4, "lr_decay_style": "constant", "weight_decay": 0.1},
    }
    (work / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    run("-m", "megatron_ext.pretrain", work / "recipe.yaml")
    lines = (output / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    steps = [record for record in records if record["kind"] == "train"]
    return [step["tokens_per_second"] for step in steps[arguments.warm_up :]], steps[0]["loss"]


def trainer(work: Path, number: int, arguments: argparse.Namespace) -> tuple[list[float], float]:
    """Train with Hugging Face's Trainer in a process of its own; return the same figures."""
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(arguments).items()
        if name not in ("trainer", "output")
    ]
    run(__file__, "--trainer", work, *options)
    result = json.loads((work / "trainer.json").read_text(encoding="utf-8"))
    return result["rates"][arguments.warm_up :], result["loss"]


def train_with_trainer(work: Path, arguments: argparse.Namespace) -> None:
    """Train in that process, and write its figures to a file."""
    import numpy
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(threads())
    tokens = torch.from_numpy(numpy.load(work / "tokens.npy").astype(numpy.int64)).view(
        -1, arguments.sequence
    )
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.monotonic())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.monotonic())

    options = TrainingArguments(
        output_dir=str(work / "trainer"),
        per_device_train_batch_size=arguments.micro_batch,
        gradient_accumulation_steps=arguments.accumulation,
        max_steps=arguments.steps,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        max_grad_norm=1.0,
        bf16=arguments.precision == "bf16",
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=SEED,
    )
    model = AutoModelForCausalLM.from_pretrained(
        work / "hf", dtype=torch.float32, trust_remote_code=False
    )
    data = [{"input_ids": row, "labels": row} for row in tokens]
    run_trainer = Trainer(model=model, args=options, train_dataset=data, callbacks=[Clock()])
    run_trainer.train()
    size = batch(arguments) * arguments.sequence
    rates = [size / (end - start) for start, end in zip(marks[::2], marks[1::2], strict=True)]
    loss = next(record["loss"] for record in run_trainer.state.log_history if "loss" in record)
    (work / "trainer.json").write_text(json.dumps({"rates": rates, "loss": loss}), encoding="utf-8")


def threads() -> int:
    """Return the threads that both may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def run(*command: object) -> None:
    """Run a script of the repository; its output is shown when it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-3000:]}")


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="20m", help="the model (default 20m)")
    parser.add_argument(
        "--sequence", type=int, default=512, help="tokens in a sequence (default 512)"
    )
    parser.add_argument(
        "--micro-batch", type=int, default=2, help="sequences in a forward pass (default 2)"
    )
    parser.add_argument(
        "--accumulation", type=int, default=2, help="forward passes in a step (default 2)"
    )
    parser.add_argument("--steps", type=int, default=8, help="steps of each run (default 8)")
    parser.add_argument(
        "--warm-up", type=int, default=2, help="steps of each run that are not timed (default 2)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (default 2)")
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="of weights and products (default fp32)",
    )
    parser.add_argument("--output", type=Path, help="also write the result to this file")
    parser.add_argument("--trainer", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    cli.run(main)
