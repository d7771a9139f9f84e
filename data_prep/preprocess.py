r"""Tokenization: documents to Megatron's indexed token files, with the model's own tokenizer.

    galen preprocess --input corpus/train --output-prefix data/train \
        --tokenizer-model model/ --append-eod --workers 2

writes data/train_text_document.bin and .idx, the format and names of Megatron-LM's
preprocess_data.py, and data/train_manifest.json. Input: JSONL (plain or compressed), Parquet,
Arrow, standard input; records keep their order; the output does not depend on --workers. A killed
run resumes when started again. Inspect the result: galen inspect-tokens
data/train_text_document
"""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from data_prep.files.find import find_files
from data_prep.tokenization import token_options
from data_prep.tokenization.encoders import Encoder, ReferenceEncoder, choose_encoder
from data_prep.tokenization.indexed_dataset import id_type
from data_prep.tokenization.input_blocks import ENDINGS, STDIN, FileRange, shard_inputs
from data_prep.tokenization.input_hashes import InputHashes
from data_prep.tokenization.input_sample import sample_input
from data_prep.tokenization.job import TokenJob
from data_prep.tokenization.megatron_lm_options import refuse_options_of_megatron_lm
from data_prep.tokenization.special_tokens import special_tokens
from data_prep.tokenization.stats import id_counts, write_page
from data_prep.tokenization.tokenizer import TextTokenizer, load_tokenizer, read_special_tokens
from data_prep.tokenization.worker import Task
from data_prep.tokenization.write_tokens import write_tokens
from galen import cli, lock, manifest
from galen.errors import DataError, UsageError
from galen.run_folder import finished
from galen.run_identity import Identity, stat_record

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    start = time.monotonic()
    refuse_options_of_megatron_lm(sys.argv[1:] if argv is None else argv)
    arguments = token_options.parser(__doc__).parse_args(argv)
    token_options.check(arguments)
    files = _input_files(arguments.input)
    shards = dict(enumerate(shard_inputs(files, arguments.shards)))
    if arguments.shard is not None:
        shards = {arguments.shard: shards[arguments.shard]}
    hashes = InputHashes(list(chain.from_iterable(shards.values())))
    added = []
    if arguments.add_special_tokens:
        added = read_special_tokens(arguments.add_special_tokens)
    tokenizer = load_tokenizer(arguments.tokenizer_model, added)
    bos, eod = special_tokens(arguments, tokenizer)
    fingerprint = tokenizer.fingerprint()
    tokenizer_record: dict[str, Any] = {
        "path": str(arguments.tokenizer_model),
        "sha256": fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "eod": eod,
    }
    if added:
        tokenizer_record["added"] = tokenizer.special
    config = token_options.config(arguments, fingerprint, bos, eod)
    sequence_config = token_options.sequence_config(arguments, bos, eod)
    names = ["text", "role"] if arguments.instruction else arguments.json_keys
    for shard, ranges in shards.items():
        prefix = arguments.output_prefix
        if arguments.shards > 1:
            prefix = f"{prefix}_{shard:05d}-of-{arguments.shards:05d}"
        job = TokenJob(prefix, names, "sentence" if arguments.split_sentences else "document")
        with lock.hold(prefix):
            if not _is_finished(job, ranges, config, hashes):
                task = Task(
                    ranges,
                    arguments.json_keys,
                    sequence_config,
                    id_type(tokenizer.vocab_size),
                    tokenizer,
                    ReferenceEncoder(tokenizer),
                )
                _run(job, task, config, tokenizer_record, arguments, hashes, start)
        start = time.monotonic()
    return 0


def _run(
    job: TokenJob,
    task: Task,
    config: Mapping[str, Any],
    tokenizer_record: Mapping[str, Any],
    arguments: argparse.Namespace,
    hashes: InputHashes,
    start: float,
) -> None:
    """Run or resume one job up to its manifest."""
    with job.working(Identity(config, [_input_signature(item) for item in task.ranges])):
        if task.ranges[0].path == STDIN:
            job.restart()  # the earlier content of the pipe is lost
        task.encoder = _choose_encoder(task, arguments.encoder, arguments.workers)
        bytes_before = job.state.bytes
        tokens_before = sum(output.tokens for output in job.state.outputs.values())
        try:
            first_result = write_tokens(
                job,
                task,
                arguments.workers,
                max_documents=arguments.max_documents,
                skip_invalid=arguments.on_bad_line == "skip",
                on_bytes_read=hashes.stdin.update,
            )
            _finish(job, task, arguments.stats)
            counts = _write_manifest(job, task, config, tokenizer_record, hashes)
        except OSError as error:
            job.unpublish()
            where = error.filename or job.manifest.parent
            raise DataError(
                f"cannot write {where}: {error.strerror}; free some space and start the same"
                " command again to resume"
            ) from None
    seconds = time.monotonic() - start
    print(_summary(counts, task.tokenizer.vocab_size))
    tokens = sum(output["tokens"] for output in counts["outputs"].values()) - tokens_before
    names = ", ".join(str(output.bin) for output in job.outputs.values())
    megabytes = (counts["bytes"] - bytes_before) / 1e6
    first = 0.0 if first_result is None else first_result - start
    print(
        f"{names} and .idx, {seconds:.1f} s (first ids after {first:.1f} s),"
        f" {megabytes / seconds:.1f} MB/s, {tokens / seconds:,.0f} tokens/s, encoder"
        f" {task.encoder.name}"
    )


def _choose_encoder(task: Task, name: str, workers: int) -> Encoder:
    """Return an encoder that was compared on a sample; log why it is not the fastest one."""
    from_stdin = task.ranges[0].path == STDIN
    texts = [] if name == "reference" or from_stdin else sample_input(task)
    encoder, reason = choose_encoder(task.tokenizer, texts, name, workers)
    if reason is not None and encoder.name == "reference":
        logger.warning(f"encoding with the tokenizer itself, which is slow: {reason}")
    elif reason is not None:
        logger.warning(f"encoding with {encoder.name}: {reason}")
    return encoder


def _input_files(names: Sequence[str]) -> list[Path]:
    if "-" in names:
        if len(names) > 1:
            raise UsageError("--input -: standard input cannot be combined with files")
        return [STDIN]
    for folder in filter(os.path.isdir, names):
        with contextlib.suppress(DataError):
            manifest.read(folder, stage="curate")
            raise UsageError(
                f"--input {folder}: a complete corpus with its held-out splits; pass one split,"
                f" such as {Path(folder) / 'train'}"
            )
    files: list[Path] = []
    for name in names:
        matches = _files_of(name)
        is_file = Path(name).is_file()
        files += [path for path in matches if is_file or path.name != manifest.NAME]
    if not files:
        raise DataError(f"{', '.join(names)} contains no documents: only {manifest.NAME}")
    repeated = [str(path) for path, count in Counter(files).items() if count > 1]
    if repeated:
        listed = ", ".join(repeated[:3]) + " …" * (len(repeated) > 3)
        logger.warning(f"input files are read more than once: {listed}")
    return files


def _files_of(name: str) -> list[Path]:
    """Return the files of an `--input`.

    Raises:
        DataError: there are none; suggests curation for a folder of XML.
    """
    try:
        return find_files(name, ENDINGS)
    except DataError as error:
        xml = ("*.xml", "*.xml.gz", "*.nxml")
        if any(any(Path(name).rglob(pattern)) for pattern in xml):
            raise DataError(f"{error}; it holds XML: run `galen curate` first") from None
        raise


def _is_finished(
    job: TokenJob, ranges: Sequence[FileRange], config: Mapping[str, Any], hashes: InputHashes
) -> bool:
    if not job.manifest.exists() or ranges[0].path == STDIN:
        return False
    names = ", ".join(str(output.bin) for output in job.outputs.values())
    identity = Identity(config, [hashes.record(item) for item in ranges])
    existing = finished(names, job.manifest, "preprocess", identity)
    if existing is None:
        return False
    job.remove_working_files()  # killed after its manifest
    counts = existing["counts"]
    logger.info(
        f"{names} is already complete: {counts['documents']:,} documents,"
        f" {counts['tokens']:,} tokens"
    )
    return True


def _input_signature(item: FileRange) -> dict[str, Any]:
    """Return a record that changes with a file, made without reading it."""
    if item.path == STDIN:
        return {"path": "-"}
    return stat_record(item.path) | {"start": item.start, "end": item.end}


def _finish(job: TokenJob, task: Task, stats: bool) -> None:
    """Write the indexes, give all files their final names, and write the page of `--stats`."""
    for output in job.outputs.values():
        output.writer.write_index(output.idx_work)
    job.publish()
    if stats:
        bases = {
            name: output.base
            for name, output in job.outputs.items()
            if name != "role" or task.sequence_config.message is None
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
    tokenizer_record: Mapping[str, Any],
    hashes: InputHashes,
) -> dict[str, Any]:
    """Write the manifest of a finished job; return its counts."""
    outputs: list[Any] = []
    for output in job.outputs.values():
        tally = output.tally
        outputs.append(
            {"path": str(output.bin), "bytes": tally.bytes, "sha256": tally.sha256()},
        )
        outputs.append(output.idx)
    counts = _counts(job, task.tokenizer)
    manifest.write(
        job.manifest,
        stage="preprocess",
        inputs=[hashes.record(item) for item in task.ranges],
        config=config,
        outputs=outputs,
        counts=counts,
        tokenizer=tokenizer_record,
        encoder=task.encoder.name,
    )
    return counts


def _counts(job: TokenJob, tokenizer: TextTokenizer) -> dict[str, Any]:
    state = job.state
    outputs = {
        name: {
            "documents": output.documents,
            "sequences": output.sequences,
            "tokens": output.tokens,
            "longest": output.longest,
            "longest_document": output.longest_document,
            **id_counts(job.outputs[name].tally, tokenizer),
        }
        for name, output in state.outputs.items()
    }
    first = next(iter(outputs.values()))
    return {
        "documents": first["documents"],
        "tokens": first["tokens"],
        "longest": first["longest"],
        "bytes": state.bytes,
        "skipped": state.skipped,
        "skipped_examples": state.examples,
        "outputs": outputs,
    }


def _summary(counts: dict[str, Any], vocab_size: int) -> str:
    lines = []
    for name, output in counts["outputs"].items():
        documents = output["documents"]
        tokens = output["tokens"]
        longest = f"the longest {output['longest']:,} (document {output['longest_document']:,})"
        lines += [
            f"documents {documents:>16,}   {name}",
            f"tokens    {tokens:>16,}   {tokens / documents:,.1f} per document, {longest}",
            f"unknown   {output['unknown']:>16,}   {output['unknown_rate']:.4%} of the tokens",
            f"not used  {output['ids_never_used']:>16,}   of {vocab_size:,} ids",
        ]
    tokens = sum(output["tokens"] for output in counts["outputs"].values())
    lines.append(
        f"text      {counts['bytes'] / 1e6:>13,.1f} MB   {counts['bytes'] / max(tokens, 1):.2f}"
        " bytes a token"
    )
    if counts["skipped"]:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in counts["skipped"].items())
        lines.append(f"skipped   {sum(counts['skipped'].values()):>16,}   {reasons}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
