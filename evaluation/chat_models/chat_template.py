"""Chat templates of models, rendered within limits: a template is an untrusted program.

It runs in a separate process (`evaluation/chat_models/chat_template_worker.py`), which serves all
renderings of this one.
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from galen.errors import DataError, one_line
from galen.limited_process import LimitedProcess, LimitError

_MARKS = re.compile(r"<\|[A-Za-z0-9_]+\|>")
_TODAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_DATE = datetime.datetime(2024, 7, 26)
_process = LimitedProcess(Path(__file__).with_name("chat_template_worker.py"))


def render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    open_answer: bool = False,
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Return a conversation as text.

    Args:
        tokenizer: of the model; its special tokens are used.
        messages: the conversation, with `role` and `content`.
        open_answer: whether the text ends where the assistant's next message begins.
        template: None for the tokenizer's own.
        variables: further variables of the template, such as `enable_thinking`.

    Raises:
        DataError: the template refuses these messages (many require user and assistant in turn), or
            needs too much time or memory.
    """
    request = {
        "messages": [dict(message) for message in messages],
        "open_answer": open_answer,
        "special_tokens": {
            name: str(token)
            for name, token in tokenizer.special_tokens_map.items()
            if not isinstance(token, list)
        },
        "variables": dict(variables or {}),
    }
    answer = _rendered(request | {"template": template or tokenizer.get_chat_template()})
    if "text" in answer:
        return answer["text"]
    roles = f"a conversation with the roles {[message['role'] for message in messages][:8]}"
    if "limit" in answer:
        raise DataError(
            f"the chat template needs more than {answer['limit']} for {roles}; give another one"
        )
    raise DataError(f"the chat template refuses {roles}: {one_line(DataError(answer['error']))}")


def _rendered(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request: the text, or the problem."""
    try:
        answer: dict[str, Any] = json.loads(_process.ask(json.dumps(request)))
    except LimitError as error:
        return {"limit": str(error)}
    return answer


def with_fixed_date(template: str) -> str:
    """Return a template that writes Llama 3.1's default date, 26 Jul 2024, in place of today's.

    Equal runs so have equal prompts on any day.
    """
    return _TODAY.sub(lambda call: repr(_DATE.strftime(call[2])), template)


def split_marks(tokenizer: Any, text: str) -> list[str]:
    """Return the marks `<|…|>` in a rendered text that are no tokens of the tokenizer."""
    marks = sorted(set(_MARKS.findall(text)))
    return [mark for mark in marks if len(tokenizer.encode(mark, add_special_tokens=False)) != 1]
