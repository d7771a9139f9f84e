"""Tokenization throughput compared, on the same text with the same number of cores, in one run.

    python benchmarks/preprocess.py --corpus corpus/train \\
        --tokenizer mistral=tokenizer.model deepseek=deepseek/

`--corpus` is a folder of curated records (data_prep/curate.py). They are repeated up to
--megabytes; in each repetition one word in six and every number is another one, so that remembered
words do not cheat. Timed, each as a process of its own from start to end:

    preprocess_data.py       Megatron-LM's, with --megatron CHECKOUT; SentencePiece models by its
                             SentencePiece tokenizer
    preprocess_data_fast.py  Megatron-LM's, with --megatron CHECKOUT; gigatoken on all cores,
                             everything in memory
    datatrove                its Megatron step, on as many processes
    encode_batch             Hugging Face tokenizers alone: texts in memory, ids thrown away
    bare encoder             the encoder that Galen chose, alone: texts in memory, ids thrown away
    galen                    data_prep/preprocess.py

preprocess_data.py, datatrove and encode_batch get the first --slow-megabytes; the others all of it,
--rounds times in turn, of which the run of median speed is told. MB/s are megabytes of the JSONL
file over seconds from start to end (encode_batch and the bare encoder: seconds of encoding alone);
for the two slow commands the time is scaled up after their start-up is taken off, which is the time
for almost no text, from start to end. "running" is MB/s with the start-up taken off: to be compared
with the bare encoder, which has none. Megatron-LM needs packages that Galen does not (triton,
awkward): --megatron-python names a Python that has them. What the Megatron-LM scripts write is
compared with what Galen writes. Figures of a busy machine move; quote the ratios.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from data_prep.files.find import find_files
from data_prep.files.json_records import parse
from data_prep.tokenization.encoders import choose_encoder
from data_prep.tokenization.input_blocks import ENDINGS, FileRange, read_blocks, read_range
from data_prep.tokenization.tokenizer import load_tokenizer
from galen import cli
from galen.errors import UsageError

ROOT = Path(__file__).parents[1]
TINY = 20
OWN_CLOCK = ("encode_batch", "bare encoder")
"""What tells its speed itself, without starting up."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    if arguments.alone:
        return alone(*arguments.alone)
    if arguments.corpus is None or not arguments.tokenizer:
        raise UsageError("--corpus and --tokenizer are needed")
    work = Path(tempfile.mkdtemp(prefix="benchmark_", dir=arguments.work)).resolve()
    try:
        corpora = make_corpora(arguments, work)
        results = []
        for given in arguments.tokenizer:
            name, _, path = given.partition("=")
            results += measure(name, Path(path).resolve(), corpora, arguments, work)
        print_table(results)
        if arguments.output:
            Path(arguments.output).write_text(
                json.dumps(results, indent=1) + "\n", encoding="utf-8"
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def make_corpora(arguments: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Write the enlarged corpus, its beginning for the slow ones, and almost nothing."""
    texts = [text for path in find_files(arguments.corpus, ENDINGS) for text in texts_of(path)]
    goals = {"whole": arguments.megabytes * 1e6, "slow": arguments.slow_megabytes * 1e6}
    paths = {name: work / f"{name}.jsonl" for name in (*goals, "tiny")}
    paths["tiny"].write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts[:TINY]), encoding="utf-8"
    )
    written, repetition = 0, 0
    with (
        paths["whole"].open("w", encoding="utf-8") as whole,
        paths["slow"].open("w", encoding="utf-8") as slow,
    ):
        while written < goals["whole"]:
            edit = Edit(repetition)
            for text in texts:
                line = (
                    json.dumps({"text": edit(text) if repetition else text}, ensure_ascii=False)
                    + "\n"
                )
                whole.write(line)
                if written < goals["slow"]:
                    slow.write(line)
                written += len(line.encode())
                if written >= goals["whole"]:
                    break
            repetition += 1
    print(
        f"{written / 1e6:,.0f} MB of {len(texts):,} abstracts, {repetition} times with distinct"
        " edits",
        flush=True,
    )
    return paths


class Edit:
    """Changes every number and one word in six of a text, otherwise in each repetition."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, text: str) -> str:
        """Return the changed text."""
        return re.sub(r"\d+|[A-Za-z]{4,}", self._change, text)

    def _change(self, match: re.Match[str]) -> str:
        word, chance = match[0], self._random.random
        if word[0].isdigit():
            return "".join(str(int(chance() * 10)) for _ in word)
        if chance() > 1 / 6:
            return word
        place = int(chance() * len(word))
        return word[:place] + "abcdefghijklmnopqrstuvwxyz"[int(chance() * 26)] + word[place + 1 :]


def texts_of(path: Path) -> list[str]:
    """Return the texts of a JSONL file."""
    part, result = FileRange(path), []
    for block in read_blocks([part], 1 << 22, ["text"]):
        result += parse(
            read_range(path, block.start, block.end) if block.data is None else block.data, ["text"]
        ).fields[0]
    return result


def measure(
    name: str, tokenizer: Path, corpora: dict[str, Path], arguments: argparse.Namespace, work: Path
) -> list[dict[str, Any]]:
    """Time everything with one tokenizer."""
    huggingface = _as_huggingface(tokenizer, work / f"{name}_hf")
    commands: dict[str, Any] = {}
    out, workers = str(work / "out"), str(arguments.workers)
    me = str(Path(__file__).resolve())
    if arguments.megatron:
        commands |= megatron_commands(tokenizer, huggingface, arguments, out)
    commands["datatrove"] = (
        "slow",
        [sys.executable, me, "--alone", "datatrove", str(huggingface), workers],
    )
    commands["encode_batch"] = (
        "slow",
        [sys.executable, me, "--alone", "encode_batch", str(huggingface), workers],
    )
    commands["bare encoder"] = (
        "whole",
        [sys.executable, me, "--alone", "bare", str(tokenizer), workers],
    )
    mine = [
        "--tokenizer-model",
        str(tokenizer),
        "--append-eod",
        "--workers",
        workers,
        "--output-prefix",
        out,
        "--input",
    ]
    commands["galen"] = ("whole", [sys.executable, str(ROOT / "data_prep/preprocess.py"), *mine])
    runs: dict[str, list[dict[str, Any]]] = {what: [] for what in commands}
    for number in range(arguments.rounds):
        for what, (size, command) in commands.items():
            if size == "slow" and number:
                continue
            found = timed(what, command, corpora, size, work)
            if not number:
                keep_output(what, name, size, work)
            runs[what].append(found)
            print(f"{name:10} {what:24} {json.dumps(found)}", flush=True)
    return [{"tokenizer": name, "what": what, **median(found)} for what, found in runs.items()]


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median speed (of two the slower), or one that failed."""
    failed = [run for run in runs if "mb_per_s" not in run]
    return (
        failed[0]
        if failed
        else sorted(runs, key=lambda run: float(run["mb_per_s"]))[(len(runs) - 1) // 2]
    )


def megatron_commands(
    tokenizer: Path, huggingface: Path, arguments: argparse.Namespace, out: str
) -> dict[str, Any]:
    """Return the command lines of Megatron-LM's scripts.

    The fast one supports Hugging Face folders only.
    """
    python = (
        arguments.megatron_python
        if "/" not in arguments.megatron_python
        else str(Path(arguments.megatron_python).absolute())
    )
    tools = Path(arguments.megatron).resolve() / "tools"
    shared = ["--append-eod", "--output-prefix", out]
    ids_alone = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(huggingface)]
    ids_alone.append("--tokenizer-hf-no-include-special-tokens")
    kind = (
        ids_alone
        if tokenizer.is_dir()
        else ["--tokenizer-type", "SentencePieceTokenizer", "--tokenizer-model", str(tokenizer)]
    )
    plain = [
        python,
        str(tools / "preprocess_data.py"),
        *shared,
        "--workers",
        str(arguments.workers),
        "--log-interval",
        "1000000",
        *kind,
    ]
    fast = [python, str(tools / "preprocess_data_fast.py"), *shared, *ids_alone, "--use-gigatoken"]
    return {
        "preprocess_data.py": ("slow", [*plain, "--input"]),
        "preprocess_data_fast.py": ("whole", [*fast, "--input"]),
    }


def keep_output(what: str, name: str, size: str, work: Path) -> None:
    """Compare Galen's and Megatron-LM's output over the text that both had; print the result."""
    path, theirs = work / "out_text_document.bin", work / f"theirs_{name}_{{}}.bin"
    if what.startswith("preprocess_data") and path.exists():
        path.replace(str(theirs).format(size))
    if what == "galen" and path.exists():
        for other in ("slow", "whole"):
            file = Path(str(theirs).format(other))
            if file.exists():
                compare = ["cmp", "-s", "-n", str(file.stat().st_size), str(file), str(path)]
                same = subprocess.run(compare, check=False).returncode == 0
                print(
                    f"{name:10} the ids of Megatron-LM ({other}) and of Galen are"
                    f" {'the same' if same else 'NOT the same'}",
                    flush=True,
                )


def timed(
    what: str, command: list[str], corpora: dict[str, Path], size: str, work: Path
) -> dict[str, Any]:
    """Run a command on a corpus; return its seconds for the whole one, and what else is known."""
    whole, part = (corpora[name].stat().st_size / 1e6 for name in ("whole", size))
    # twice: the first time its packages may still have to come from the disk
    start_up = (
        None
        if what in OWN_CLOCK
        else min(_run(command, corpora["tiny"], work)["seconds"] for _ in range(2))
    )
    found = _run(command, corpora[size], work)
    if "error" in found:
        return found
    if start_up is None:
        return found | {"mb_per_s": found.pop("own_clock")}
    if found["seconds"] <= start_up:
        return {
            "error": f"{part:.1f} MB take no longer than starting up: give more --slow-megabytes"
        }
    running = part / (found["seconds"] - start_up)
    seconds = start_up + whole / running
    return found | {
        "seconds": seconds,
        "of_mb": part,
        "start_up": start_up,
        "running_mb_per_s": running,
        "mb_per_s": whole / seconds,
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
    watch = _Memory(process.pid)
    output, errors = process.communicate()
    seconds = time.monotonic() - start
    if process.returncode:
        return {
            "seconds": seconds,
            "error": (errors.strip().splitlines() or ["no message"])[-1][:200],
        }
    found: dict[str, Any] = {"seconds": seconds, "peak_mb": watch.stop()}
    if match := re.search(r"^alone ([\d.]+)$", output, re.MULTILINE):
        found["own_clock"] = float(match[1])
    return found


class _Memory:
    """Samples the memory of a process and its children: private of each, and shared once (PSS)."""

    def __init__(self, pid: int) -> None:
        import threading

        self._pid, self._peak, self._end = pid, 0, threading.Event()
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
            found = re.search(
                r"^Pss:\s+(\d+)",
                Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"),
                re.MULTILINE,
            )
        except OSError:
            return 0
        return int(found[1]) if found else 0  # a process that has ended holds none


def alone(what: str, tokenizer: str, workers: str, corpus: str) -> int:
    """Do one of the things that have no command of their own, in this process."""
    if what == "datatrove":
        _datatrove(tokenizer, int(workers), Path(corpus))
        return 0
    texts = texts_of(Path(corpus))
    size = Path(corpus).stat().st_size / 1e6
    if what == "encode_batch":
        os.environ["RAYON_NUM_THREADS"] = workers
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        from tokenizers import Tokenizer

        encoder = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
        start = time.monotonic()
        for first in range(0, len(texts), 1000):
            encoder.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
    else:
        from multiprocessing import get_context

        fast_encoder, _ = choose_encoder(load_tokenizer(tokenizer), texts[:100])
        processes = [
            get_context("fork").Process(
                target=_encode, args=(fast_encoder, texts[n :: int(workers)])
            )
            for n in range(int(workers))
        ]
        start = time.monotonic()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    print(f"alone {size / (time.monotonic() - start):.2f}")
    return 0


def _encode(encoder: Any, texts: list[str]) -> None:
    for first in range(0, len(texts), 1000):
        deque(encoder.encode(texts[first : first + 1000]), maxlen=0)


def _datatrove(tokenizer: str, workers: int, corpus: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import MegatronDocumentTokenizer

    shares = corpus.parent / f"out_{corpus.stem}_shares"
    shares.mkdir()
    subprocess.run(
        [
            "split",
            "-n",
            f"l/{workers}",
            str(corpus),
            str(shares / "part"),
            "--additional-suffix=.jsonl",
        ],
        check=True,
    )
    eos = json.loads(Path(tokenizer, "tokenizer_config.json").read_text(encoding="utf-8"))[
        "eos_token"
    ]
    step = MegatronDocumentTokenizer(
        output_folder=str(corpus.parent / "out_datatrove"),
        tokenizer_name_or_path=f"{tokenizer}/tokenizer.json",
        eos_token=eos if isinstance(eos, str) else eos["content"],
        save_filename="part",
    )
    executor = LocalPipelineExecutor(
        [JsonlReader(str(shares)), step],
        tasks=workers,
        workers=workers,
        logging_dir=str(corpus.parent / f"out_log_{corpus.stem}"),
    )
    executor.run()


def _as_huggingface(tokenizer: Path, folder: Path) -> Path:
    """Return a Hugging Face folder of the tokenizer, for those that can use no other."""
    if tokenizer.is_dir():
        return tokenizer
    from gigatoken._load.sentencepiece import sentencepiece_to_tokenizer_json

    folder.mkdir()
    (folder / "tokenizer.json").write_text(
        sentencepiece_to_tokenizer_json(tokenizer.read_bytes()), encoding="utf-8"
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "bos_token": "<s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def print_table(results: list[dict[str, Any]]) -> None:
    """Print speeds and how much faster or slower Galen is."""
    print(
        f"\n{'tokenizer':10} {'':24} {'MB/s':>8} {'galen is':>9} {'running':>8} {'start s':>8}"
        f" {'memory MB':>10}"
    )
    for found in results:
        galen = next(
            one
            for one in results
            if one["tokenizer"] == found["tokenizer"] and one["what"] == "galen"
        )
        if "mb_per_s" not in found:
            print(f"{found['tokenizer']:10} {found['what']:24} failed: {found.get('error')}")
            continue
        ratio = f"{galen['mb_per_s'] / found['mb_per_s']:.2f}x" if "mb_per_s" in galen else ""
        running, start = (
            f"{found[key]:8.1f}" if key in found else " " * 8
            for key in ("running_mb_per_s", "start_up")
        )
        speed = f"{found['mb_per_s']:8.1f} {ratio:>9} {running} {start}"
        print(f"{found['tokenizer']:10} {found['what']:24} {speed} {found['peak_mb']:10,}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", metavar="F", help="curated records: a file or folder")
    parser.add_argument(
        "--tokenizer",
        nargs="+",
        default=[],
        metavar="NAME=T",
        help="SentencePiece models or Hugging Face folders",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="cores for each [%(default)s]",
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        default=500,
        metavar="N",
        help="size of the enlarged corpus [500]",
    )
    parser.add_argument(
        "--slow-megabytes",
        type=float,
        default=40,
        metavar="N",
        help="how much of it the slow ones get [40]",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        metavar="N",
        help="how often those are run that get all of it [1]",
    )
    parser.add_argument(
        "--megatron", metavar="DIR", help="a checkout of Megatron-LM: time its two scripts too"
    )
    parser.add_argument(
        "--megatron-python",
        default=sys.executable,
        metavar="F",
        help="the Python that runs them [this one]",
    )
    parser.add_argument(
        "--work", metavar="DIR", help="where to put what is made [the system's temporary folder]"
    )
    parser.add_argument("--output", metavar="F", help="also write the figures to this JSON file")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    cli.run(main)
