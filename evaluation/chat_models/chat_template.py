"""Chat templates of models, rendered within limits: a template is an untrusted program.

Jinja's sandbox blocks access to the system but not endless loops and texts, so it runs in a
separate process with limits on time, memory and length
(`evaluation/chat_models/chat_template_worker.py`); one process serves all renderings of this one.
"""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from galen.errors import DataError, one_line

_MARKS = re.compile(r"<\|[A-Za-z0-9_]+\|>")
_TODAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_DATE = datetime.datetime(2024, 7, 26)
_WORKER = Path(__file__).with_name("chat_template_worker.py")


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
    answer = _renderer.ask(template or tokenizer.get_chat_template(), request)
    if "text" in answer:
        return answer["text"]
    roles = f"a conversation with the roles {[message['role'] for message in messages][:8]}"
    if "limit" in answer:
        raise DataError(
            f"the chat template needs more than {answer['limit']} for {roles}; give another one"
        )
    raise DataError(f"the chat template refuses {roles}: {one_line(DataError(answer['error']))}")


def with_fixed_date(template: str) -> str:
    """Return a template that writes Llama 3.1's default date, 26 Jul 2024, in place of today's.

    Equal runs so have equal prompts on any day.
    """
    return _TODAY.sub(lambda call: repr(_DATE.strftime(call[2])), template)


def split_marks(tokenizer: Any, text: str) -> list[str]:
    """Return the marks `<|…|>` in a rendered text that are no tokens of the tokenizer."""
    marks = sorted(set(_MARKS.findall(text)))
    return [mark for mark in marks if len(tokenizer.encode(mark, add_special_tokens=False)) != 1]


class _Renderer:
    """The rendering process, started on first use and restarted after a template has ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._template = ""

    def ask(self, template: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            is_known = template == self._template
            self._template = template
            try:
                process.stdin.write(
                    json.dumps({**request, "template": None if is_known else template}) + "\n"
                )
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            if line:
                return json.loads(line)
            return {"limit": self._end(process)}

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None or self._owner != os.getpid():  # a forked process has its parent's
            command = [sys.executable, str(_WORKER)]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
            self._owner = os.getpid()
            self._template = ""
            assert self._process.stdout is not None
            if not self._process.stdout.readline():
                self._process = None
                raise DataError(
                    f"{_WORKER.name} does not start; `{sys.executable} {_WORKER}` may show why"
                )
        return self._process

    def _end(self, process: "subprocess.Popen[str]") -> str:
        """Return the resource that the process ran out of."""
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self._process = None
        return (
            "5 s of processor time" if process.wait() == -signal.SIGPROF else "its process may have"
        )


_renderer = _Renderer()
