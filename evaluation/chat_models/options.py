"""Options of `galen evaluate` for chat and reasoning models."""

import argparse
import json
from typing import Any

from evaluation.prompts.chat import FORMATS


def add_chat_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of chat template and thinking."""
    add_template_options(parser)
    parser.add_argument(
        "--system-prompt",
        metavar="TEXT|@FILE",
        help="system message, before the description of the task",
    )
    parser.add_argument(
        "--fewshot-as-multiturn",
        action=argparse.BooleanOptionalAction,
        help="few-shot examples as turns of the conversation, or all in one message",
    )
    parser.add_argument(
        "--answer-format",
        choices=tuple(FORMATS),
        help="format that the protocols chat, chat_cot and reasoning ask for",
    )
    parser.add_argument(
        "--guided-decoding",
        action=argparse.BooleanOptionalAction,
        help=("force JSON answers to their schema (default: with protocol chat, where possible)"),
    )
    parser.add_argument(
        "--thinking-markers",
        nargs=2,
        metavar=("OPEN", "CLOSE"),
        help="texts around the model's thinking (default: those of its family)",
    )
    parser.add_argument(
        "--thinking-budget",
        type=int,
        metavar="TOKENS",
        help="maximum length of the thinking; --max-new-tokens then limits the answer after it",
    )
    parser.add_argument(
        "--budget-forcing",
        action=argparse.BooleanOptionalAction,
        help="close thinking that exceeds its budget, and ask for the answer",
    )


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the chat template."""
    parser.add_argument(
        "--chat-template",
        metavar="auto|none|FILE",
        help=(
            "the tokenizer's own, if it has one; plain text; or a Jinja file (default: auto for the"
            " protocols chat, chat_cot and reasoning, none for the published ones)"
        ),
    )
    parser.add_argument(
        "--chat-template-kwargs",
        type=_json_object,
        metavar="JSON",
        help="variables of the chat template, for example '{\"enable_thinking\": false}'",
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of sampling; the default is the protocol's, or the model's own settings."""
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="X",
        help=(
            "0 is greedy decoding (default: the protocol's; for chat, chat_cot and reasoning that"
            " of the model's generation_config.json, as for the next three)"
        ),
    )
    parser.add_argument(
        "--top-p", type=float, metavar="X", help="sample from tokens with this total probability"
    )
    parser.add_argument(
        "--top-k", type=int, metavar="N", help="sample from so many tokens; 0: from all"
    )
    parser.add_argument(
        "--repetition-penalty", type=float, metavar="X", help="penalty on tokens that occurred"
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, not {text!r}")
    return value
