"""Chat templates: choosing and installing one, and locating the assistant's messages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.chat_models import chat_template
from galen.errors import DataError, UsageError, did_you_mean

BUILT_IN = Path(__file__).parent / "chat_templates"
_PROBE = "\ue000\ue001\ue000"
"""Stands for an answer to see what the template writes around it.

Of a private area of Unicode, so that no template has it.
"""
_EXAMPLE = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"})


def read_template(name: str) -> str:
    """Return a template of `finetune/data/chat_templates/` by its name, or the one in a file.

    Raises:
        UsageError: there is no such template.
    """
    names = sorted(path.stem for path in BUILT_IN.glob("*.jinja"))
    path = BUILT_IN / f"{name}.jinja" if name in names else Path(name)
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"data.chat_template: {path} is not UTF-8: {error}") from None
    except OSError:
        hint = f"{did_you_mean(name, names)} (or the path of a .jinja file)"
        raise UsageError(f"data.chat_template: there is no template {name!r}; {hint}") from None


def install(tokenizer: Any, template: str | None) -> None:
    """Write a chat template into the tokenizer, or with None check that it has one of its own.

    Raises:
        UsageError: it has none, or the marks that the template writes around messages are no tokens
            of its own.
    """
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise UsageError(
            "this tokenizer has no chat template, and the data are conversations; give"
            " data.chat_template, for example meditron"
        )
    split = chat_template.split_marks(tokenizer, render(tokenizer, _EXAMPLE, open_answer=True))
    if split:
        raise UsageError(
            f"the chat template writes {', '.join(split)}, which this tokenizer splits into several"
            f" tokens; add {'them' if len(split) > 1 else 'it'}:"
            f" model.add_tokens=[{', '.join(repr(mark) for mark in split)}]"
        )


def render(tokenizer: Any, messages: Sequence[Mapping[str, str]], open_answer: bool = False) -> str:
    """Return a conversation as text.

    With `open_answer` up to where the assistant's next message begins.

    Raises:
        DataError: the template refuses these messages (many want user and assistant in turn), or
            needs too much time or memory.
    """
    template = None  # with several named templates, transformers chooses the default
    if isinstance(tokenizer.chat_template, str):
        template = chat_template.with_fixed_date(tokenizer.chat_template)
    return chat_template.render(tokenizer, messages, open_answer, template)


def answers(
    tokenizer: Any, messages: Sequence[Mapping[str, str]]
) -> tuple[str, list[tuple[int, int]], bool]:
    """Return the rendered conversation, its assistant spans, and whether a mark ends the last.

    A span is (first character, character after the last). A message begins after the text that the
    template writes before every answer, and ends with the mark that ends it, a token of its own:
    that is what the model has to write. Without such a mark it ends with its text.

    Raises:
        DataError: the template changes earlier messages when others follow, or an answer's text, so
            that answers cannot be found.
    """
    rendered = render(tokenizer, messages)
    marks = _end_marks(tokenizer)
    spans, marked = [], False
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:number], open_answer=True)
        head, _, tail = render(
            tokenizer, [*messages[:number], {**message, "content": _PROBE}]
        ).partition(_PROBE)
        prefixes_match = rendered.startswith(before) and head.startswith(before)
        if not (prefixes_match and rendered.startswith(head)):
            raise DataError(
                "this chat template writes earlier messages differently when others follow them, so"
                " that the tokens of the answers cannot be located; choose another"
                " data.chat_template, or use one question and answer per conversation"
            )
        end = _end_after(rendered, len(head), message["content"].strip())
        if end is None:
            raise DataError(
                f"this chat template changes what the assistant says ({message['content']!r:.60});"
                " give another data.chat_template"
            )
        mark = next((mark for mark in marks if tail.lstrip().startswith(mark)), None)
        mark_end = None if mark is None else _end_after(rendered, end, mark)
        marked = mark_end is not None
        spans.append((len(before), end if mark_end is None else mark_end))
    return rendered, spans, marked


def _end_after(text: str, start: int, expected: str) -> int | None:
    """Return the end of a string expected at a position after white space, or None without it."""
    while start < len(text) and text[start].isspace():
        start += 1
    return start + len(expected) if text.startswith(expected, start) else None


def _special_tokens(tokenizer: Any) -> list[str]:
    """Return the tokens that a template can write as marks, the longest first."""
    names = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return sorted((name for name in names if name.strip()), key=lambda name: (-len(name), name))


def _end_marks(tokenizer: Any) -> list[str]:
    """Return the tokens that can end an answer, the longest first, but no user's opening token.

    A template may write that behind each answer, for the next turn; end of sequence counts, even
    where it also begins a text.
    """
    opening = (
        render(tokenizer, _EXAMPLE[:1]).strip().removeprefix(tokenizer.bos_token or "").lstrip()
    )
    return [
        mark
        for mark in _special_tokens(tokenizer)
        if mark == tokenizer.eos_token or not opening.startswith(mark)
    ]


def end_of_answer(tokenizer: Any) -> int:
    """Return the id of the token that ends an answer and generation.

    The template's mark, or end of sequence.

    Raises:
        UsageError: there is neither.
    """
    rendered, [(_, end)], marked = answers(tokenizer, _EXAMPLE)
    if marked:
        return tokenizer.encode(rendered[:end], add_special_tokens=False)[-1]
    if tokenizer.eos_token_id is None:
        raise UsageError(
            "the chat template writes no token that ends an answer, and this tokenizer names no"
            " end-of-sequence token, so that no answer would ever end; choose another"
            " data.chat_template, for example chatml"
        )
    return tokenizer.eos_token_id


def has_end_mark(tokenizer: Any) -> bool:
    """Return whether the template writes a token that ends an answer."""
    return answers(tokenizer, _EXAMPLE)[2]
