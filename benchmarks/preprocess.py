"""Compare tokenization throughput, on the same text with the same number of cores, in one run.

    python benchmarks/preprocess.py --corpus corpus/train \\
        --tokenizer mistral=tokenizer.model deepseek=deepseek/

`--corpus` is a folder of curated records (data_prep/curate.py). They are repeated up to
--megabytes; each repetition changes one word in six and every number, so that a word cache does not
profit. Each program is timed as a process of its own from start to end:

    preprocess_data.py       Megatron-LM's, with --megatron CHECKOUT; SentencePiece models by its
                             SentencePiece tokenizer
    preprocess_data_fast.py  Megatron-LM's, with --megatron CHECKOUT; gigatoken on all cores,
                             everything in memory
    datatrove                its Megatron step, on as many processes
    encode_batch             Hugging Face tokenizers: texts in memory, ids discarded
    bare encoder             the encoder that Galen chose: texts in memory, ids discarded
    galen                    data_prep/preprocess.py

preprocess_data.py, datatrove and encode_batch get the first --slow-megabytes; the others the full
corpus, --rounds times in turn, of which the run of median speed is reported. MB/s are megabytes of
the JSONL file over seconds from start to end (encode_batch and the bare encoder: seconds of
encoding only); for the slow programs the time without start-up is scaled up. The start-up is the
time for almost no text. "running" is MB/s without the start-up: compare it with the bare encoder,
which has none. Megatron-LM needs packages that Galen does not (triton, awkward):
--megatron-python names a Python that has them. The output of the Megatron-LM scripts is compared
with Galen's. Figures of a busy machine vary; quote the ratios.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from preprocess_corpus import make_corpora
from preprocess_peers import as_huggingface

from galen import cli

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).resolve().with_name("preprocess_peers.py")
OWN_CLOCK = ("encode_batch", "bare encoder")
"""Programs that print their own speed, without start-up."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="benchmark_", dir=arguments.work)).resolve()
    try:
        corpora = make_corpora(arguments, work)
        results = []
        for named_path in arguments.tokenizer:
            name, _, path = named_path.partition("=")
            results += measure(name, Path(path).resolve(), corpora, arguments, work)
        print_table(results)
        if arguments.output:
            Path(arguments.output).write_text(
                json.dumps(results, indent=1) + "\n", encoding="utf-8"
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def measure(
    name: str, tokenizer: Path, corpora: dict[str, Path], arguments: argparse.Namespace, work: Path
) -> list[dict[str, Any]]:
    """Time all programs with one tokenizer."""
    huggingface = as_huggingface(tokenizer, work / f"{name}_hf")
    output = str(work / "out")
    workers = str(arguments.workers)
    peers = [sys.executable, str(PEERS)]
    commands: dict[str, tuple[str, list[str]]] = {}
    if arguments.megatron:
        commands |= megatron_commands(tokenizer, huggingface, arguments, output)
    commands |= {
        "datatrove": ("slow", [*peers, "datatrove", str(huggingface), workers]),
        "encode_batch": ("slow", [*peers, "encode_batch", str(huggingface), workers]),
        "bare encoder": ("full", [*peers, "bare", str(tokenizer), workers]),
    }
    galen = [sys.executable, str(ROOT / "data_prep/preprocess.py"), "--append-eod"]
    galen += ["--tokenizer-model", str(tokenizer), "--workers", workers]
    commands["galen"] = ("full", [*galen, "--output-prefix", output, "--input"])
    runs: dict[str, list[dict[str, Any]]] = {program: [] for program in commands}
    for number in range(arguments.rounds):
        for program, (size, command) in commands.items():
            if size == "slow" and number:
                continue
            result = timed(program, command, corpora, size, work)
            if not number:
                compare_output(program, name, size, work)
            runs[program].append(result)
            print(f"{name:10} {program:24} {json.dumps(result)}", flush=True)
    return [
        {"tokenizer": name, "program": program, **median(results)}
        for program, results in runs.items()
    ]


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median speed (the slower of two), or one that failed."""
    failed = [run for run in runs if "mb_per_s" not in run]
    if failed:
        return failed[0]
    return sorted(runs, key=lambda run: float(run["mb_per_s"]))[(len(runs) - 1) // 2]


def megatron_commands(
    tokenizer: Path, huggingface: Path, arguments: argparse.Namespace, output: str
) -> dict[str, tuple[str, list[str]]]:
    """Return the command lines of Megatron-LM's scripts.

    The fast one supports Hugging Face folders only.
    """
    python = arguments.megatron_python
    if "/" in python:
        python = str(Path(python).absolute())
    tools = Path(arguments.megatron).resolve() / "tools"
    common = ["--append-eod", "--output-prefix", output]
    hf_options = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(huggingface)]
    hf_options.append("--tokenizer-hf-no-include-special-tokens")
    options = hf_options
    if not tokenizer.is_dir():
        options = ["--tokenizer-type", "SentencePieceTokenizer"]
        options += ["--tokenizer-model", str(tokenizer)]
    plain = [python, str(tools / "preprocess_data.py"), *common, *options]
    plain += ["--workers", str(arguments.workers), "--log-interval", "1000000"]
    fast = [python, str(tools / "preprocess_data_fast.py"), *common, *hf_options]
    return {
        "preprocess_data.py": ("slow", [*plain, "--input"]),
        "preprocess_data_fast.py": ("full", [*fast, "--use-gigatoken", "--input"]),
    }


def compare_output(program: str, name: str, size: str, work: Path) -> None:
    """Compare Galen's and Megatron-LM's output over their common text; print the result."""
    path = work / "out_text_document.bin"
    if not path.exists():
        return
    if program.startswith("preprocess_data"):
        path.replace(work / f"megatron_{name}_{size}.bin")
    if program != "galen":
        return
    for other in ("slow", "full"):
        file = work / f"megatron_{name}_{other}.bin"
        if file.exists():
            compare = ["cmp", "-s", "-n", str(file.stat().st_size), str(file), str(path)]
            same = subprocess.run(compare, check=False).returncode == 0
            verdict = "the same" if same else "NOT the same"
            print(
                f"{name:10} the ids of Megatron-LM ({other}) and of Galen are {verdict}",
                flush=True,
            )


def timed(
    program: str, command: list[str], corpora: dict[str, Path], size: str, work: Path
) -> dict[str, Any]:
    """Run a command on a corpus; return speed, memory, and seconds for the full corpus."""
    full_mb = corpora["full"].stat().st_size / 1e6
    corpus_mb = corpora[size].stat().st_size / 1e6
    start_up = None
    if program not in OWN_CLOCK:
        # twice: the first time its packages may have to be read from the disk
        start_up = min(_run(command, corpora["tiny"], work)["seconds"] for _ in range(2))
    result = _run(command, corpora[size], work)
    if "error" in result:
        return result
    if start_up is None:
        return result | {"mb_per_s": result.pop("own_clock")}
    if result["seconds"] <= start_up:
        return {
            "error": f"{corpus_mb:.1f} MB take no longer than the start-up: increase"
            " --slow-megabytes"
        }
    running = corpus_mb / (result["seconds"] - start_up)
    seconds = start_up + full_mb / running
    return result | {
        "seconds": seconds,
        "of_mb": corpus_mb,
        "start_up": start_up,
        "running_mb_per_s": running,
        "mb_per_s": full_mb / seconds,
    }


def _run(command: list[str], corpus: Path, work: Path) -> dict[str, Any]:
    for path in (*work.glob("out*"), *work.glob(".out*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, str(corpus)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(Path(command[1]).parents[1])},
    )
    memory = _Memory(process.pid)
    output, errors = process.communicate()
    seconds = time.monotonic() - start
    if process.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        return {"seconds": seconds, "error": last[:200]}
    result: dict[str, Any] = {"seconds": seconds, "peak_mb": memory.stop()}
    speed = re.search(r"^speed ([\d.]+)$", output, re.MULTILINE)
    if speed:
        result["own_clock"] = float(speed[1])
    return result


class _Memory:
    """Samples the memory of a process and its children: private of each, and shared once (PSS)."""

    def __init__(self, pid: int) -> None:
        import threading

        self._pid = pid
        self._peak = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return the highest sum, in megabytes."""
        self._end.set()
        self._thread.join()
        return self._peak // 1000

    def _watch(self) -> None:
        import psutil

        while not self._end.wait(0.3):
            total = 0
            with contextlib.suppress(psutil.Error):  # it has ended
                parent = psutil.Process(self._pid)
                for process in (parent, *parent.children(recursive=True)):
                    total += self._of(process.pid)
            self._peak = max(self._peak, total)

    def _of(self, pid: int) -> int:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            return 0
        pss = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
        return int(pss[1]) if pss else 0  # none once it has ended


def print_table(results: list[dict[str, Any]]) -> None:
    """Print speeds and how much faster or slower Galen is."""
    print(
        f"\n{'tokenizer':10} {'':24} {'MB/s':>8} {'galen is':>9} {'running':>8} {'start s':>8}"
        f" {'memory MB':>10}"
    )
    galen = {one["tokenizer"]: one for one in results if one["program"] == "galen"}
    for result in results:
        name = f"{result['tokenizer']:10} {result['program']:24}"
        if "mb_per_s" not in result:
            print(f"{name} failed: {result.get('error')}")
            continue
        galen_speed = galen[result["tokenizer"]].get("mb_per_s")
        ratio = f"{galen_speed / result['mb_per_s']:.2f}x" if galen_speed else ""
        running = f"{result['running_mb_per_s']:.1f}" if "running_mb_per_s" in result else ""
        start = f"{result['start_up']:.1f}" if "start_up" in result else ""
        print(
            f"{name} {result['mb_per_s']:8.1f} {ratio:>9} {running:>8} {start:>8}"
            f" {result['peak_mb']:10,}"
        )


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--corpus", required=True, metavar="F", help="curated records: a file or folder")
    add(
        "--tokenizer",
        nargs="+",
        required=True,
        metavar="NAME=T",
        help="SentencePiece models or Hugging Face folders",
    )
    cores = os.cpu_count() or 1
    add("--workers", type=int, default=cores, metavar="N", help="cores of each [%(default)s]")
    add("--megabytes", type=float, default=500, metavar="N", help="size of the corpus [500]")
    add(
        "--slow-megabytes",
        type=float,
        default=40,
        metavar="N",
        help="size of its beginning, for the slow programs [40]",
    )
    add("--rounds", type=int, default=1, metavar="N", help="runs of the fast programs [1]")
    add("--megatron", metavar="DIR", help="checkout of Megatron-LM: time its two scripts, too")
    add(
        "--megatron-python",
        default=sys.executable,
        metavar="F",
        help="Python that runs them [this one]",
    )
    add("--work", metavar="DIR", help="folder of intermediate files [system's default]")
    add("--output", metavar="F", help="also write the figures to this JSON file")
    return parser


if __name__ == "__main__":
    cli.run(main)
