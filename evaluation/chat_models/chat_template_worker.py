"""The process that renders chat templates of models, with limits on time and memory.

Requests and answers are JSON; see `evaluation.chat_models.chat_template`.
"""

import json
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from galen import limited_process


def _answer(line: str) -> str:
    return json.dumps(_rendered(json.loads(line)))


def _rendered(request: dict[str, Any]) -> dict[str, Any]:
    """Return the text of a conversation, or the problem."""
    try:
        [text], _ = render_jinja_template(
            conversations=[request["messages"]],
            chat_template=request["template"],
            add_generation_prompt=request["open_answer"],
            **{**request["special_tokens"], **request["variables"]},
        )
        text.encode()  # a template can write half of a surrogate pair, which tokenizers refuse
    except MemoryError:
        return {"limit": limited_process.MEMORY_LIMIT}
    except Exception as error:  # a template may raise anything: it is a program
        message = str(error) or f"{type(error).__name__}: "
        return {"error": message[:400]}
    if len(text) > limited_process.MAX_TEXT:
        return {"limit": limited_process.TEXT_LIMIT}
    return {"text": text}


if __name__ == "__main__":
    limited_process.serve(_answer)
