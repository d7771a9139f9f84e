"""Documents to Megatron's indexed token files, with the model's own tokenizer.

    python data_prep/preprocess.py --input corpus/train --output-prefix data/train \
        --tokenizer-model model/ --append-eod --workers 2

writes data/train_text_document.bin and .idx, the format and names of Megatron-LM's
preprocess_data.py, and data/train_manifest.json. Input: JSONL (plain or compressed), Parquet,
Arrow, standard input; records keep their order; the output does not depend on --workers. A killed
run resumes when started again. Inspect the result: python data_prep/describe.py
data/train_text_document
"""

import argparse
import bisect
import contextlib
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.files.find import find_files
from data_prep.files.json_records import Bad
from data_prep.tokenization import options as token_options
from data_prep.tokenization.encoders import Engine, ReferenceEngine, choose_engine
from data_prep.tokenization.indexed_dataset import id_type
from data_prep.tokenization.input_blocks import (
    ENDINGS,
    STDIN,
    TABLES,
    Block,
    Part,
    is_plain,
    line_number,
    line_start,
    read_blocks,
    share_out,
)
from data_prep.tokenization.job import TokenJob
from data_prep.tokenization.part_hashes import PartHashes
from data_prep.tokenization.stats import id_counts, write_page
from data_prep.tokenization.tokenizer import TextTokenizer, load_tokenizer, read_special_tokens
from data_prep.tokenization.worker import Result, Task, sample_texts
from data_prep.tokenization.worker_pool import TokenPool
from galen import cli, lock, manifest
from galen.errors import DataError, UsageError
from galen.progress import Progress
from galen.run_folder import Identity, finished, stat_record

SAVE_SECONDS = 5.0
EXAMPLES = 20


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    start = time.monotonic()
    token_options.refuse_options_of_megatron_lm(sys.argv[1:] if argv is None else argv)
    arguments = token_options.parser(__doc__).parse_args(argv)
    token_options.check(arguments)
    files = _input_files(arguments.input)
    shares = dict(enumerate(share_out(files, arguments.shards)))
    if arguments.shard is not None:
        shares = {arguments.shard: shares[arguments.shard]}
    hashes = PartHashes([part for parts in shares.values() for part in parts])
    special = (
        read_special_tokens(arguments.add_special_tokens) if arguments.add_special_tokens else []
    )
    tokenizer = load_tokenizer(arguments.tokenizer_model, special)
    bos, eod = token_options.marks(arguments, tokenizer)
    fingerprint = tokenizer.fingerprint()
    contract = {
        "path": str(arguments.tokenizer_model),
        "sha256": fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "eod": eod,
        **({"added": tokenizer.special} if special else {}),
    }
    config = token_options.config(arguments, fingerprint, bos, eod)
    shape = token_options.shape(arguments, bos, eod)
    names = ["text", "role"] if arguments.instruction else arguments.json_keys
    for shard, parts in shares.items():
        prefix = (
            arguments.output_prefix
            if arguments.shards == 1
            else f"{arguments.output_prefix}_{shard:05d}-of-{arguments.shards:05d}"
        )
        job = TokenJob(prefix, names, "sentence" if arguments.split_sentences else "document")
        with lock.hold(prefix):
            if not _is_finished(job, parts, config, hashes):
                task = Task(
                    parts,
                    arguments.json_keys,
                    shape,
                    id_type(tokenizer.vocab_size),
                    tokenizer,
                    ReferenceEngine(tokenizer),
                )
                _run(job, task, config, contract, arguments, hashes, start)
        start = time.monotonic()
    return 0


def _run(
    job: TokenJob,
    task: Task,
    config: Mapping[str, Any],
    contract: Mapping[str, Any],
    arguments: argparse.Namespace,
    hashes: PartHashes,
    start: float,
) -> None:
    """Do one job from where it stands to its manifest."""
    with job.working(Identity(config, [_input_signature(part) for part in task.parts])):
        if task.parts[0].path == STDIN:
            job.restart()  # what came through a pipe is gone
        task.engine = _engine(task, arguments.engine, arguments.workers)
        before = job.state.bytes, sum(output.tokens for output in job.state.outputs.values())
        try:
            first = tokenise(job, task, arguments, hashes.stdin.update, start)
            _finish(job, task, arguments.stats)
            counts = _write_manifest(job, task, config, contract, hashes)
        except OSError as error:
            job.unpublish()
            where = error.filename or job.manifest.parent
            raise DataError(
                f"cannot write {where}: {error.strerror}; what is done stays: make room and start"
                " the same command again"
            ) from None
    seconds = time.monotonic() - start
    print(_summary(counts, task.tokenizer.vocab_size))
    tokens = sum(output["tokens"] for output in counts["outputs"].values()) - before[1]
    names = ", ".join(str(output.bin) for output in job.outputs.values())
    rate = (
        f"{(counts['bytes'] - before[0]) / 1e6 / seconds:.1f} MB/s, {tokens / seconds:,.0f}"
        " tokens/s"
    )
    print(
        f"{names} and .idx, {seconds:.1f} s (the first ids after {first:.1f} s), {rate}, engine"
        f" {task.engine.name}"
    )


def tokenise(
    job: TokenJob,
    task: Task,
    arguments: argparse.Namespace,
    taken: Callable[[bytes], None],
    start: float,
) -> float:
    """Encode the task's parts into the working files of `job`, from where it stopped.

    Return the seconds from `start` to the first ids.

    Args:
        job: its outputs and state.
        task: what is encoded, and how.
        arguments: the command's.
        taken: called with every piece of standard input.
        start: when the command began.

    Raises:
        DataError: a line is not a record with text under the key (and none may be skipped), or
            there is no document at all.
    """
    state = job.state
    for name, output in job.outputs.items():
        output.open(task.dtype, state.outputs[name], task.tokenizer.vocab_size)
    before = list(accumulate((part.size for part in task.parts), initial=0))
    left = (
        math.inf
        if arguments.max_documents is None
        else arguments.max_documents - next(iter(state.outputs.values())).documents
    )
    with (
        TokenPool(task, arguments.workers) as pool,
        Progress("tokenise", total=before[-1] or None, unit="B", scale=True) as progress,
    ):
        blocks = read_blocks(
            task.parts, pool.block_bytes, task.keys, state.part, state.offset, taken
        )
        first, tokens, begun = 0.0, 0, time.monotonic()
        saved = begun
        for block, result in pool.run(blocks if left else iter(())):
            left = _cut(result, left)
            _take(job, task, block, result, arguments.on_bad_line)
            now = time.monotonic()
            first = first or now - start
            tokens += sum(len(encoded.ids) for encoded in result.outputs)
            progress.label = (
                f"tokenise {tokens / 1e6:,.1f}M tokens,"
                f" {tokens / 1e6 / max(now - begun, 1e-3):.2f}M tokens/s"
            )
            progress.update(before[block.part] + block.position - progress.done)
            if now - saved > SAVE_SECONDS:
                for output in job.outputs.values():
                    output.writer.flush()
                job.save()
                saved = time.monotonic()
            if not left:
                break
    for output in job.outputs.values():
        output.writer.close()
    if not any(output.documents for output in state.outputs.values()):
        raise DataError(
            f"there is no document in {', '.join(str(part.path) for part in task.parts[:3])}"
        )
    return first


def _take(job: TokenJob, task: Task, block: Block, result: Result, on_bad: str) -> None:
    """Add what came of a block to the working files and to the state."""
    state, part = job.state, task.parts[block.part]
    if result.bad and on_bad == "stop":
        raise DataError(_told(part, block, result.bad[0]))
    for bad in result.bad:
        state.skipped[bad.reason] = state.skipped.get(bad.reason, 0) + 1
        if len(state.examples) < EXAMPLES:
            state.examples.append(_told(part, block, bad))
            print(f"skipped: {state.examples[-1]}", file=sys.stderr)
    if result.differs is not None:
        text = result.differs[:60]
        raise DataError(
            f"the {task.engine.name} engine gives other ids than the tokenizer for {text!r}; start"
            " again with --engine reference"
        )
    for (name, output), encoded in zip(job.outputs.items(), result.outputs, strict=True):
        now = state.outputs[name]
        if len(encoded.counts):
            ends = np.concatenate([[0], np.cumsum(encoded.lengths, dtype=np.int64)])[
                np.concatenate([[0], np.cumsum(encoded.counts)])
            ]
            sizes = np.diff(ends)
            if sizes.max() > now.longest:
                now.longest, now.longest_document = (
                    int(sizes.max()),
                    now.documents + int(sizes.argmax()),
                )
        output.writer.add(encoded.ids, encoded.lengths, encoded.counts)
        output.tally.add(encoded.ids)
        now.documents, now.sequences, now.tokens = (
            output.writer.documents,
            output.writer.sequences,
            output.writer.tokens,
        )
    state.part, state.offset = block.part, block.end
    state.bytes += sum(result.text_bytes)


def _cut(result: Result, left: float) -> float:
    """Drop the documents after the first `left`, and the bad lines after these.

    Return how many are still wanted.
    """
    if len(result.numbers) < left:
        return left - len(result.numbers)
    wanted = int(left)
    last = result.numbers[wanted - 1]
    result.numbers, result.text_bytes = result.numbers[:wanted], result.text_bytes[:wanted]
    result.bad = [bad for bad in result.bad if bad.number < last]
    for encoded in result.outputs:
        encoded.counts = encoded.counts[:wanted]
        encoded.lengths = encoded.lengths[: int(encoded.counts.sum())]
        encoded.ids = encoded.ids[: int(encoded.lengths.sum())]
    return 0


def _told(part: Part, block: Block, bad: Bad) -> str:
    """Return the position of a bad line and its error.

    Lines of plain files are counted only now.
    """
    if part.path.suffix.lower() in TABLES:
        place = f"{part.path}, row {block.start + bad.number + 1:,}"
    elif part.path == STDIN:
        place = f"standard input, line {bad.number + 1:,} after byte {block.start:,}"
    else:
        place = f"{part.path}, line {line_number(part, block.start) + bad.number}"
    return f"{place}: {bad.detail}"


def _engine(task: Task, wanted: str, workers: int) -> Engine:
    """Choose how to encode, on a sample of the input; say so if it is not the fastest way."""
    texts = [] if wanted == "reference" or task.parts[0].path == STDIN else _sample(task)
    engine, why = choose_engine(task.tokenizer, texts, wanted, workers)
    if why is not None:
        slow = (
            "encoding with the tokenizer itself, which is slow"
            if engine.name == "reference"
            else f"encoding with {engine.name}"
        )
        print(f"{slow}: {why}", file=sys.stderr)
    return engine


def _sample(task: Task) -> list[str]:
    """Return some texts from eight positions of the input.

    Compressed files and tables are sampled only from their beginning.
    """
    ends = list(accumulate(part.size for part in task.parts))
    places = set()
    for eighth in range(8):
        position = ends[-1] * eighth // 8
        number = min(bisect.bisect_right(ends, position), len(ends) - 1)
        part = task.parts[number]
        end = part.start + part.size
        places.add(
            (
                number,
                (
                    line_start(part.path, end - (ends[number] - position), end)
                    if is_plain(part.path)
                    else 0
                ),
            )
        )
    texts: list[str] = []
    for number, skip in sorted(places):
        with contextlib.suppress(DataError):  # will be told in its place
            for block in islice(
                read_blocks(task.parts[: number + 1], 1 << 16, task.keys, number, skip), 1
            ):
                texts += sample_texts(task, block)
    return texts


def _input_files(given: Sequence[str]) -> list[Path]:
    if "-" in given:
        if len(given) > 1:
            raise UsageError("--input -: standard input goes alone")
        return [STDIN]
    for folder in filter(os.path.isdir, given):
        with contextlib.suppress(DataError):
            manifest.read(folder, stage="curate")
            raise UsageError(
                f"--input {folder}: a whole corpus, with what is held out; give one split, such as"
                f" {Path(folder) / 'train'}"
            )
    files = [
        path
        for name in given
        for path in find_files(name, ENDINGS)
        if path.name != manifest.NAME or Path(name).is_file()
    ]
    if not files:
        raise DataError(f"{', '.join(given)} holds no documents: only {manifest.NAME}")
    if twice := [str(path) for path, times in Counter(files).items() if times > 1]:
        print(
            f"named, and so read, more than once: {', '.join(twice[:3])}{' …' * (len(twice) > 3)}",
            file=sys.stderr,
        )
    return files


def _is_finished(
    job: TokenJob, parts: Sequence[Part], config: Mapping[str, Any], hashes: PartHashes
) -> bool:
    if not job.manifest.exists() or parts[0].path == STDIN:
        return False
    names = ", ".join(str(output.bin) for output in job.outputs.values())
    identity = Identity(config, [hashes.record(part) for part in parts])
    existing = finished(names, job.manifest, "preprocess", identity)
    if existing is None:
        return False
    job.remove_working_files()  # killed after its manifest
    counts = existing["counts"]
    print(
        f"{names} is already complete: {counts['documents']:,} documents,"
        f" {counts['tokens']:,} tokens"
    )
    return True


def _input_signature(part: Part) -> dict[str, Any]:
    """Return what tells an unfinished job that its input is still the same, without reading it."""
    if part.path == STDIN:
        return {"path": "-"}
    return stat_record(part.path) | {"start": part.start, "end": part.end}


def _finish(job: TokenJob, task: Task, stats: bool) -> None:
    """Write the indexes, give all files their names, and write the page if it is wanted."""
    for output in job.outputs.values():
        output.writer.write_index(output.idx_work)
    job.publish()
    if stats:
        bases = {
            name: output.base
            for name, output in job.outputs.items()
            if name != "role" or task.shape.message is None
        }
        write_page(
            job.stats,
            bases,
            {name: output.tally for name, output in job.outputs.items()},
            task.tokenizer,
        )


def _write_manifest(
    job: TokenJob,
    task: Task,
    config: Mapping[str, Any],
    contract: Mapping[str, Any],
    hashes: PartHashes,
) -> dict[str, Any]:
    """Write the manifest of a finished job; return its counts."""
    outputs: list[Any] = []
    for output in job.outputs.values():
        outputs += [
            {"path": str(output.bin), "bytes": output.tally.bytes, "sha256": output.tally.sha256()},
            output.idx,
        ]
    counts = _counts(job, task.tokenizer)
    manifest.write(
        job.manifest,
        stage="preprocess",
        inputs=[hashes.record(part) for part in task.parts],
        config=config,
        outputs=outputs,
        counts=counts,
        tokenizer=contract,
        engine=task.engine.name,
    )
    return counts


def _counts(job: TokenJob, tokenizer: TextTokenizer) -> dict[str, Any]:
    state = job.state
    each = {}
    for name, now in state.outputs.items():
        known = {
            "documents": now.documents,
            "sequences": now.sequences,
            "tokens": now.tokens,
            "longest": now.longest,
        }
        each[name] = {
            **known,
            "longest_document": now.longest_document,
            **id_counts(job.outputs[name].tally, tokenizer),
        }
    top = next(iter(each.values()))
    result = {name: top[name] for name in ("documents", "tokens", "longest")}
    return {
        **result,
        "bytes": state.bytes,
        "skipped": state.skipped,
        "skipped_examples": state.examples,
        "outputs": each,
    }


def _summary(counts: dict[str, Any], vocab_size: int) -> str:
    lines = []
    for name, found in counts["outputs"].items():
        documents, tokens = found["documents"], found["tokens"]
        longest = f"the longest {found['longest']:,} (document {found['longest_document']:,})"
        lines += [
            f"documents {documents:>16,}   {name}",
            f"tokens    {tokens:>16,}   {tokens / documents:,.1f} a document, {longest}",
            f"unknown   {found['unknown']:>16,}   {found['unknown_rate']:.4%} of the tokens",
            f"not used  {found['ids_never_used']:>16,}   of {vocab_size:,} ids",
        ]
    tokens = sum(found["tokens"] for found in counts["outputs"].values())
    lines.append(
        f"text      {counts['bytes'] / 1e6:>13,.1f} MB   {counts['bytes'] / max(tokens, 1):.2f}"
        " bytes a token"
    )
    if counts["skipped"]:
        lines.append(
            f"skipped   {sum(counts['skipped'].values()):>16,}  "
            f" {', '.join(f'{why}: {n:,}' for why, n in counts['skipped'].items())}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
