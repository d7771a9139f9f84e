"""The beginning-of-document and end-of-document tokens of a tokenizer."""

import argparse
import logging
from typing import Any

from data_prep.tokenization.tokenizer import TextTokenizer
from galen.errors import DataError

logger = logging.getLogger(__name__)

_END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|eot|>",
)
"""Tokens that end a turn of a conversation; chat models have them as `eos_token`."""
_END_OF_DOCUMENT = ("<|endoftext|>", "<|end_of_text|>", "<|endofdocument|>", "<eos>", "</s>")
"""Tokens that end a document in the base models of the same families.

In order: Qwen, SmolLM2, Phi; Llama 3; Gemma; Llama 2, Mistral.
"""


def special_tokens(
    arguments: argparse.Namespace, tokenizer: TextTokenizer
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the beginning-of-document and the end-of-document token, with their ids.

    The first one if it is prepended; the second one if it is known or appended.

    Raises:
        DataError: a token is needed but unknown, or is not in the vocabulary.
    """
    bos = None
    eod = None
    if arguments.prepend_bos:
        bos = _special_token(
            tokenizer,
            arguments.bos_token or tokenizer.default_bos,
            "beginning-of-document",
            "--bos-token",
        )
    token = arguments.eod_token or tokenizer.default_eod
    if token or arguments.append_eod:
        eod = _special_token(tokenizer, token, "end-of-document", "--eod-token")
    if arguments.append_eod and not arguments.eod_token and eod:
        warning = _chat_token_warning(eod["token"], tokenizer)
        if warning is not None:
            logger.warning(warning)
    return bos, eod


def _chat_token_warning(token: str, tokenizer: TextTokenizer) -> str | None:
    """Return a warning if the default end-of-document token ends a turn of a conversation."""
    if token not in _END_OF_TURN:
        return None
    others = [other for other in _END_OF_DOCUMENT if tokenizer.token_id(other) is not None]
    warning = (
        f"--append-eod uses {token!r}, the eos token in the tokenizer's files, which ends a turn of"
        " a conversation in chat models"
    )
    if not others:
        return f"{warning}; choose another one with --eod-token"
    return (
        f"{warning}; base models of this family end a document with {others[0]!r}:"
        f" --eod-token '{others[0]}'"
    )


def _special_token(
    tokenizer: TextTokenizer, token: str | None, role: str, option: str
) -> dict[str, Any]:
    if token is None:
        raise DataError(f"{tokenizer.path} names no {role} token; set it with {option}")
    token_id = tokenizer.token_id(token)
    if token_id is None:
        raise DataError(f"the {role} token {token!r} is not in the vocabulary of {tokenizer.path}")
    return {"token": token, "id": token_id}
