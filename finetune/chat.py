"""Chat templates: choosing one, writing it into the tokenizer, and finding what the assistant says in a rendered conversation."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.chat_template import render
from galen.errors import DataError, UsageError, nearest

BUILT_IN = Path(__file__).parent / "chat_templates"
_MARKS = re.compile(r"<\|[a-z_]+\|>")
_EXAMPLE = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"})


def read_template(name: str) -> str:
    """Return a template of `finetune/chat_templates/` by its name, or the one in a file.

    Raises:
        UsageError: there is no such template.
    """
    names = sorted(path.stem for path in BUILT_IN.glob("*.jinja"))
    path = BUILT_IN / f"{name}.jinja" if name in names else Path(name)
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        hint = f"{nearest(name, names)} (or the path of a .jinja file)"
        raise UsageError(f"data.chat_template: there is no template {name!r}; {hint}") from None


def install(tokenizer: Any, template: str | None) -> None:
    """Write a chat template into the tokenizer, or with None check that it has one of its own.

    Raises:
        UsageError: it has none, or the marks that the template writes around messages are no tokens of its own.
    """
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise UsageError(
            "this tokenizer has no chat template, and the data are conversations; give data.chat_template, for example meditron"
        )
    marks = sorted(set(_MARKS.findall(render(tokenizer, _EXAMPLE, open_answer=True))))
    split = [mark for mark in marks if len(tokenizer.encode(mark, add_special_tokens=False)) != 1]
    if split:
        raise UsageError(
            f"the chat template writes {', '.join(split)}, which this tokenizer splits into several tokens; "
            f"add {'them' if len(split) > 1 else 'it'}: model.add_tokens=[{', '.join(repr(mark) for mark in split)}]"
        )


def answers(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """Return the rendered conversation, and where in it each of the assistant's messages stands: (first, behind the last) character.

    A message begins behind the text that the template writes before every answer, and ends with the mark that ends it: that is
    what the model has to write. White space behind the mark is the template's.

    Raises:
        DataError: the template changes earlier messages when others follow, so that answers cannot be found by their place.
    """
    whole = render(tokenizer, messages)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, behind = render(tokenizer, messages[:number], open_answer=True), render(tokenizer, messages[: number + 1])
        if not (whole.startswith(behind) and behind.startswith(before)):
            raise DataError(
                "this chat template writes earlier messages differently when others follow them, so that it cannot be told "
                "which tokens are the answers; give another data.chat_template, or one question and answer to a conversation"
            )
        spans.append((len(before), len(behind.rstrip())))
    return whole, spans


def end_of_answer(tokenizer: Any) -> int:
    """Return the id of the token that ends an answer, at which generation has to stop."""
    whole, ((_, end),) = answers(tokenizer, _EXAMPLE)
    return tokenizer.encode(whole[:end], add_special_tokens=False)[-1]
