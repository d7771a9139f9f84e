"""The process that renders chat templates of models, with limits on time and memory.

It reads one request a line and writes one answer a line, both JSON, until its input ends; see
`evaluation.chat_models.chat_template`.
"""

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

SECONDS = 5.0
"""Processor time of one rendering."""
MEMORY = 2**30
"""Bytes in addition to those at the start of the process."""
MAX_TEXT = 2**24
"""Characters of a rendered conversation."""


def main() -> None:
    """Answer requests."""
    _limit_memory()
    template = ""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        template = request.pop("template") or template
        # its signal ends the process
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        answer = _answer(template, request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), flush=True)


def _answer(template: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the text of a conversation, or the problem."""
    try:
        [text], _ = render_jinja_template(
            conversations=[request["messages"]],
            chat_template=template,
            add_generation_prompt=request["open_answer"],
            **{**request["special_tokens"], **request["variables"]},
        )
        text.encode()  # a template can write half of a surrogate pair, which tokenizers refuse
    except MemoryError:
        return {"limit": f"{MEMORY >> 30} GiB of memory"}
    except Exception as error:  # a template may raise anything: it is a program
        message = str(error) or f"{type(error).__name__}: "
        return {"error": message[:400]}
    if len(text) > MAX_TEXT:
        return {"limit": f"{MAX_TEXT:,} characters"}
    return {"text": text}


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
