"""Options of `preprocess.py`, and whether they fit together."""

import argparse
import logging
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from data_prep.text.sentences import SentenceSplitter
from data_prep.tokenization.sequences import MESSAGE, SequenceConfig
from data_prep.tokenization.tokenizer import TextTokenizer
from galen import cli
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = cli.ArgumentParser(description)
    add = result.add_argument
    add(
        "--input",
        nargs="+",
        required=True,
        metavar="F",
        help=(
            "JSONL (plain, .gz, .zst, .bz2, .xz), .parquet, .arrow; folders of them, globs, or -"
            " for lines on standard input; in this order"
        ),
    )
    add(
        "--output-prefix",
        required=True,
        metavar="P",
        help="writes P_KEY_document.bin, .idx and P_manifest.json",
    )
    add(
        "--tokenizer-model",
        required=True,
        metavar="T",
        help="HF folder, tokenizer.json or SentencePiece .model",
    )
    add(
        "--json-keys",
        nargs="+",
        metavar="KEY",
        help="fields of a record that are text, each for an output of its own [text]",
    )
    add(
        "--append-eod",
        action="store_true",
        help="put the end-of-document token after each document",
    )
    add(
        "--eod-token",
        metavar="TOKEN",
        help="this token, instead of the eos token that the tokenizer's files name",
    )
    add(
        "--prepend-bos",
        action="store_true",
        help="put the beginning-of-document token before each document",
    )
    add(
        "--bos-token",
        metavar="TOKEN",
        help="this token, instead of the bos token that the tokenizer's files name",
    )
    add(
        "--add-special-tokens",
        metavar="FILE",
        help=(
            "tokens to add to the vocabulary, one a line, as in"
            " examples/special_tokens/meditron.txt"
        ),
    )
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes at a time [all cores: %(default)s]",
    )
    add("--max-documents", type=int, metavar="N", help="stop after so many documents")
    add(
        "--on-bad-line",
        choices=["stop", "skip"],
        default="stop",
        help="at an invalid record: stop, or skip and count it [stop]",
    )
    add(
        "--encoder",
        choices=["auto", "gigatoken", "cached_bpe", "reference"],
        default="auto",
        help="how to encode; all give the same ids [auto]",
    )
    add(
        "--stats",
        action="store_true",
        help="also write P_stats.html: lengths, how often ids occur, ids never used",
    )
    _add_sequence_options(result.add_argument_group("sequences"))
    sharding = result.add_argument_group("sharding")
    sharding.add_argument(
        "--shards",
        type=int,
        default=1,
        metavar="N",
        help="write N sets, P_00000-of-0000N_KEY_document …; `galen merge-indexed` joins them",
    )
    sharding.add_argument("--shard", type=int, metavar="I", help="write this one alone, from 0")
    return result


def _add_sequence_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--window", type=int, metavar="N", help="cut documents into sequences of N tokens"
    )
    group.add_argument(
        "--overlap",
        type=int,
        default=0,
        metavar="N",
        help="tokens that a window shares with the one before [0]",
    )
    group.add_argument(
        "--split-sentences",
        action="store_true",
        help="make each sentence a sequence of its own; writes P_KEY_sentence.bin and .idx",
    )
    group.add_argument(
        "--keep-newlines",
        action="store_true",
        help="keep the white space between sentences, at the end of the one before",
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
        help=f"how a message is written [{MESSAGE!r}]".replace("%", "%%"),
    )


def check(arguments: argparse.Namespace) -> None:
    """Check the options against each other and fill in what depends on others.

    Raises:
        UsageError: they do not fit together.
    """
    if not arguments.json_keys:
        arguments.json_keys = ["messages"] if arguments.instruction else ["text"]
    keys = arguments.json_keys
    rules = [
        (arguments.workers < 1, f"--workers {arguments.workers}: at least 1"),
        (
            arguments.output_prefix.endswith("/"),
            (
                f"--output-prefix {arguments.output_prefix}: add how the files' names begin, such"
                f" as {arguments.output_prefix}train"
            ),
        ),
        (len(set(keys)) < len(keys), "--json-keys names a key twice"),
        (
            arguments.instruction and len(keys) > 1,
            "--instruction takes one key, the list of messages",
        ),
        (arguments.shards < 1, f"--shards {arguments.shards}: at least 1"),
        (
            arguments.shard is not None and not 0 <= arguments.shard < arguments.shards,
            (
                f"--shard {arguments.shard}: from 0 to {arguments.shards - 1} (--shards is"
                f" {arguments.shards})"
            ),
        ),
        (
            arguments.max_documents is not None and arguments.max_documents < 1,
            "--max-documents: at least 1",
        ),
        (
            arguments.max_documents is not None and arguments.shards > 1,
            "--max-documents does not go with --shards",
        ),
        (arguments.window is not None and arguments.window < 2, "--window: at least 2"),
        (arguments.overlap and arguments.window is None, "--overlap needs --window"),
        (
            arguments.window is not None and not 0 <= arguments.overlap < arguments.window,
            f"--overlap {arguments.overlap}: from 0 to below --window, {arguments.window}",
        ),
        (
            arguments.window is not None and arguments.instruction,
            "--window and --instruction do not go together",
        ),
        (
            arguments.split_sentences and arguments.window is not None,
            "--window and --split-sentences do not go together",
        ),
        (
            arguments.split_sentences and arguments.instruction,
            "--instruction and --split-sentences do not go together",
        ),
        (
            arguments.keep_newlines and not arguments.split_sentences,
            "--keep-newlines needs --split-sentences",
        ),
        (
            arguments.lang != "en" and not arguments.split_sentences,
            "--lang needs --split-sentences",
        ),
        (
            not re.fullmatch("[a-z]{2,3}", arguments.lang),
            f"--lang {arguments.lang}: two or three letters as in ISO 639, such as en or fr",
        ),
        (
            arguments.instruction and "{content}" not in arguments.message,
            "--message: the text must hold {content}",
        ),
        (
            arguments.message != MESSAGE and not arguments.instruction,
            "--message needs --instruction",
        ),
        (arguments.bos_token and not arguments.prepend_bos, "--bos-token needs --prepend-bos"),
    ]
    for violated, message in rules:
        if violated:
            raise UsageError(message)


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


def special_tokens(
    arguments: argparse.Namespace, tokenizer: TextTokenizer
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the beginning-of-document and the end-of-document token, with their ids.

    The first if it is prepended, the second if one is named or appended.

    Raises:
        DataError: one is needed and not named, or a token is not in the vocabulary.
    """
    bos = eod = None
    if arguments.prepend_bos:
        bos = _special_token(
            tokenizer,
            arguments.bos_token or tokenizer.default_bos,
            "beginning-of-document",
            "--bos-token",
        )
    if (token := arguments.eod_token or tokenizer.default_eod) or arguments.append_eod:
        eod = _special_token(tokenizer, token, "end-of-document", "--eod-token")
    if arguments.append_eod and not arguments.eod_token and eod:
        warning = _chat_token_warning(eod["token"], tokenizer)
        if warning is not None:
            logger.warning(warning)
    return bos, eod


_ENDS_A_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|eot|>",
)
"""Tokens that end a turn of a conversation, and that chat models name as `eos_token`."""
_ENDS_A_DOCUMENT = ("<|endoftext|>", "<|end_of_text|>", "<|endofdocument|>", "<eos>", "</s>")
"""Tokens that end a document, for the base models of the same families.

In order: Qwen, SmolLM2, Phi; Llama 3; Gemma; Llama 2, Mistral.
"""


def _chat_token_warning(token: str, tokenizer: TextTokenizer) -> str | None:
    """Return the warning about a default end-of-document token that ends a turn of a conversation.

    None if it ends no turn.
    """
    if token not in _ENDS_A_TURN:
        return None
    others = [other for other in _ENDS_A_DOCUMENT if tokenizer.token_id(other) is not None]
    what = (
        f"--append-eod takes {token!r}, the eos token in the tokenizer's files: it ends a turn of a"
        " conversation, as in a chat model"
    )
    if not others:
        return f"{what}; --eod-token chooses another one"
    return (
        f"{what}; base models of this family end a document with {others[0]!r}:"
        f" --eod-token '{others[0]}'"
    )


def _special_token(
    tokenizer: TextTokenizer, token: str | None, role: str, option: str
) -> dict[str, Any]:
    if token is None:
        raise DataError(f"{tokenizer.path} names no {role} token; say which with {option}")
    token_id = tokenizer.token_id(token)
    if token_id is None:
        raise DataError(f"the {role} token {token!r} is not in the vocabulary of {tokenizer.path}")
    return {"token": token, "id": token_id}
