"""Command-line options of `preprocess.py` and the configuration that they make."""

import argparse
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from data_prep.text.sentences import SentenceSplitter
from data_prep.tokenization.sequences import MESSAGE, SequenceConfig
from galen import cli
from galen.errors import UsageError


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = cli.ArgumentParser(description)
    _add_file_options(result)
    _add_special_token_options(result)
    _add_run_options(result)
    _add_sequence_options(result.add_argument_group("sequences"))
    _add_sharding_options(result.add_argument_group("sharding"))
    return result


def _add_file_options(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="F",
        help=(
            "JSONL (plain, .gz, .zst, .bz2, .xz), .parquet, .arrow; folders of them, globs, or -"
            " for lines on standard input; in this order"
        ),
    )
    result.add_argument(
        "--output-prefix",
        required=True,
        metavar="P",
        help="writes P_KEY_document.bin, .idx and P_manifest.json",
    )
    result.add_argument(
        "--tokenizer-model",
        required=True,
        metavar="T",
        help="HF folder, tokenizer.json or SentencePiece .model",
    )
    result.add_argument(
        "--json-keys",
        nargs="+",
        metavar="KEY",
        help="text fields of a record; each is written to an output of its own [text]",
    )


def _add_special_token_options(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        "--append-eod",
        action="store_true",
        help="append the end-of-document token to each document",
    )
    result.add_argument(
        "--eod-token",
        metavar="TOKEN",
        help="end-of-document token [the eos token in the tokenizer's files]",
    )
    result.add_argument(
        "--prepend-bos",
        action="store_true",
        help="prepend the beginning-of-document token to each document",
    )
    result.add_argument(
        "--bos-token",
        metavar="TOKEN",
        help="beginning-of-document token [the bos token in the tokenizer's files]",
    )
    result.add_argument(
        "--add-special-tokens",
        metavar="FILE",
        help=(
            "tokens to add to the vocabulary, one per line, as in"
            " examples/special_tokens/meditron.txt"
        ),
    )


def _add_run_options(result: argparse.ArgumentParser) -> None:
    result.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="number of processes [all cores: %(default)s]",
    )
    result.add_argument(
        "--max-documents", type=int, metavar="N", help="stop after N documents [no limit]"
    )
    result.add_argument(
        "--on-bad-line",
        choices=["stop", "skip"],
        default="stop",
        help="at an invalid record: stop, or skip and count it [stop]",
    )
    result.add_argument(
        "--encoder",
        choices=["auto", "gigatoken", "cached_bpe", "reference"],
        default="auto",
        help="implementation of the tokenizer; all give the same ids [auto]",
    )
    result.add_argument(
        "--stats",
        action="store_true",
        help="also write P_stats.html: document lengths, token frequencies, unused tokens",
    )


def _add_sequence_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--window", type=int, metavar="N", help="split documents into sequences of N tokens"
    )
    group.add_argument(
        "--overlap",
        type=int,
        default=0,
        metavar="N",
        help="tokens that a window shares with the previous one [0]",
    )
    group.add_argument(
        "--split-sentences",
        action="store_true",
        help="make each sentence a separate sequence; writes P_KEY_sentence.bin and .idx",
    )
    group.add_argument(
        "--keep-newlines",
        action="store_true",
        help="keep the white space after each sentence",
    )
    group.add_argument(
        "--lang",
        default="en",
        metavar="CODE",
        help="language of the sentences: en, fr, es, ru, zh, ja, … [%(default)s]",
    )
    group.add_argument(
        "--instruction",
        action="store_true",
        help=(
            "a record's field (messages) is a list of {role, content}; writes P_text_document and"
            " P_role_document"
        ),
    )
    group.add_argument(
        "--message",
        default=MESSAGE,
        metavar="TEXT",
        help=f"template of a message [{MESSAGE!r}]".replace("%", "%%"),
    )


def _add_sharding_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--shards",
        type=int,
        default=1,
        metavar="N",
        help="write N outputs, P_00000-of-0000N_KEY_document …; `galen merge-indexed` joins them",
    )
    group.add_argument("--shard", type=int, metavar="I", help="write only shard I, from 0")


def check(arguments: argparse.Namespace) -> None:
    """Check the options and their combination; set the default of `json_keys`.

    Raises:
        UsageError: an option is invalid or does not fit the others.
    """
    if not arguments.json_keys:
        arguments.json_keys = ["messages"] if arguments.instruction else ["text"]
    _check_files(arguments)
    _check_sharding(arguments)
    _check_windows(arguments)
    _check_sentences(arguments)
    _check_instruction(arguments)
    if arguments.bos_token and not arguments.prepend_bos:
        raise UsageError("--bos-token needs --prepend-bos")


def _check_files(arguments: argparse.Namespace) -> None:
    prefix = arguments.output_prefix
    if arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: at least 1")
    if prefix.endswith("/"):
        raise UsageError(
            f"--output-prefix {prefix}: add the beginning of the file names, such as {prefix}train"
        )
    if len(set(arguments.json_keys)) < len(arguments.json_keys):
        raise UsageError("--json-keys names a key twice")


def _check_sharding(arguments: argparse.Namespace) -> None:
    shards = arguments.shards
    if shards < 1:
        raise UsageError(f"--shards {shards}: at least 1")
    if arguments.shard is not None and not 0 <= arguments.shard < shards:
        raise UsageError(
            f"--shard {arguments.shard}: from 0 to {shards - 1} (--shards is {shards})"
        )
    if arguments.max_documents is None:
        return
    if arguments.max_documents < 1:
        raise UsageError("--max-documents: at least 1")
    if shards > 1:
        raise UsageError("--max-documents and --shards cannot be combined")


def _check_windows(arguments: argparse.Namespace) -> None:
    window = arguments.window
    if window is None:
        if arguments.overlap:
            raise UsageError("--overlap needs --window")
        return
    if window < 2:
        raise UsageError("--window: at least 2")
    if not 0 <= arguments.overlap < window:
        raise UsageError(
            f"--overlap {arguments.overlap}: at least 0 and less than --window, {window}"
        )
    if arguments.instruction:
        raise UsageError("--window and --instruction cannot be combined")
    if arguments.split_sentences:
        raise UsageError("--window and --split-sentences cannot be combined")


def _check_sentences(arguments: argparse.Namespace) -> None:
    if not arguments.split_sentences:
        if arguments.keep_newlines:
            raise UsageError("--keep-newlines needs --split-sentences")
        if arguments.lang != "en":
            raise UsageError("--lang needs --split-sentences")
        return
    if arguments.instruction:
        raise UsageError("--instruction and --split-sentences cannot be combined")
    if not re.fullmatch("[a-z]{2,3}", arguments.lang):
        raise UsageError(
            f"--lang {arguments.lang}: two or three letters as in ISO 639, such as en or fr"
        )


def _check_instruction(arguments: argparse.Namespace) -> None:
    if not arguments.instruction:
        if arguments.message != MESSAGE:
            raise UsageError("--message needs --instruction")
        return
    if len(arguments.json_keys) > 1:
        raise UsageError("--instruction takes one key, the list of messages")
    if "{content}" not in arguments.message:
        raise UsageError("--message: the template must contain {content}")


def sequence_config(
    arguments: argparse.Namespace, bos: Mapping[str, Any] | None, eod: Mapping[str, Any] | None
) -> SequenceConfig:
    """Return how documents become sequences, by the options."""
    return SequenceConfig(
        bos=bos["id"] if bos else None,
        eod=eod["id"] if eod and arguments.append_eod else None,
        window=arguments.window,
        overlap=arguments.overlap,
        sentences=(
            SentenceSplitter(arguments.lang, arguments.keep_newlines)
            if arguments.split_sentences
            else None
        ),
        message=arguments.message if arguments.instruction else None,
    )


def config(arguments: argparse.Namespace, fingerprint: str, bos: Any, eod: Any) -> dict[str, Any]:
    """Return the configuration that decides the output's bytes."""
    keys = arguments.json_keys
    result: dict[str, Any] = {
        "json_keys": keys[0] if len(keys) == 1 else keys,
        "append_eod": arguments.append_eod,
        "tokenizer": fingerprint,
        "eod": eod,
    }
    if bos:
        result["bos"] = bos
    for name in ("max_documents", "window", "overlap", "instruction"):
        if getattr(arguments, name):
            result[name] = getattr(arguments, name)
    if arguments.instruction:
        result["message"] = arguments.message
    if arguments.split_sentences:
        result["split_sentences"] = {
            "lang": arguments.lang,
            "keep_newlines": arguments.keep_newlines,
            "sentencex": version("sentencex"),  # its rules decide the bytes
        }
    if arguments.on_bad_line != "stop":
        result["on_bad_line"] = arguments.on_bad_line
    return result
