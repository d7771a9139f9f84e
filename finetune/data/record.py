"""Supervised records other than questions: prompt and completion, or a conversation.

Also reads any kind of record from JSONL.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.question_sets import jsonl, question
from evaluation.question_sets.question import Question
from galen.errors import DataError

ROLES = {
    "human": "user",
    "prompter": "user",
    "question": "user",
    "gpt": "assistant",
    "answer": "assistant",
}
"""Other names of roles, as `data_prep/preprocess.py --instruction` knows them.

Chat templates know system, user and assistant.
"""


@dataclass(frozen=True, slots=True)
class PromptCompletion:
    """A text and what is to be written after it."""

    id: str
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in turn; the model is to write those of the assistant."""

    id: str
    messages: tuple[Mapping[str, str], ...]
    """`{"role": system | user | assistant, "content": text}`."""


Record = Question | PromptCompletion | Conversation


def read(path: str | Path) -> list[Record]:
    """Read a JSONL file of conversations, of prompts and completions, or of questions.

    Conversations are `{"messages": [{"role", "content"}]}`, the others `{"prompt",
    "completion"}`.

    Two more published layouts are read as a user's message and the assistant's: `{"question",
    "answer"}` without options, and `{"instruction", "input", "output"}`, the input after a blank
    line where there is one. The first record's keys tell which; a file holds one kind. Records
    without an `id` get one from their content, so that a split by id never parts two copies.

    Raises:
        DataError: the file is missing or empty, or a record is wrong; names file, line and key.
    """
    first = next(iter(jsonl.records(path)), None)
    if first is None:
        raise DataError(f"{path} holds no records")
    make: Callable[[dict[str, Any], str], Record]
    if "messages" in first[1]:
        make = _conversation
    elif "prompt" in first[1] and "completion" in first[1]:
        make = _prompt_completion
    elif {"instruction", "output"} <= first[1].keys():
        make = _instruction
    elif {"question", "answer"} <= first[1].keys() and "options" not in first[1]:
        make = _asked
    elif "options" in first[1]:
        return list(question.read(path))
    else:
        keys = ", ".join(repr(key)[1:-1] for key in first[1])  # on one line
        raise DataError(
            f"{first[0]}: no record of a known layout, its keys are {keys:.200}; known: question,"
            " options, answer; prompt, completion; messages; instruction, input, output; question,"
            " answer"
        )
    return [make(record, where) for where, record in jsonl.records(path)]


def text_of(record: Record) -> str:
    """Return a record's input: the prompt, all but assistant messages, or the question.

    A question comes with its context and options.
    """
    match record:
        case PromptCompletion():
            return record.prompt
        case Conversation():
            return "\n".join(
                message["content"] for message in record.messages if message["role"] != "assistant"
            )
    return "\n".join([record.context, record.question, *record.options.values()])


def _prompt_completion(record: dict[str, Any], where: str) -> PromptCompletion:
    prompt, completion = (
        jsonl.text(record, "prompt", where),
        jsonl.text(record, "completion", where),
    )
    return PromptCompletion(_id(record, where, [prompt, completion]), prompt, completion)


def _conversation(record: dict[str, Any], where: str) -> Conversation:
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: key 'messages' must be a list of messages, not"
            f" {jsonl.found(record, 'messages')}"
        )
    checked = []
    for number, message in enumerate(messages):
        location = f"{where}, message {number + 1}"
        if not isinstance(message, dict):
            raise DataError(
                f"{location}: a message must be an object with 'role' and 'content', not"
                f" {jsonl.shown(message)}"
            )
        role = jsonl.text(message, "role", location)
        role = ROLES.get(role, role)
        if role not in ("system", "user", "assistant"):
            raise DataError(
                f"{location}: key 'role' is {jsonl.shown(role)}; known: system, user, assistant"
                f" ({', '.join(ROLES)} mean the same)"
            )
        checked.append({"role": role, "content": jsonl.text(message, "content", location)})
    if checked[0]["role"] == "assistant":
        raise DataError(
            f"{where}: the first message must be the user's or the system's: the assistant's"
            " answers one"
        )
    if checked[-1]["role"] != "assistant":
        raise DataError(
            f"{where}: the last message must be the assistant's, or there is nothing to learn"
            " after it"
        )
    return Conversation(_id(record, where, checked), tuple(checked))


def _instruction(record: dict[str, Any], where: str) -> Conversation:
    instruction = jsonl.text(record, "instruction", where)
    context = record.get("input") or ""
    if not isinstance(context, str):
        raise DataError(f"{where}: key 'input' must be a text, not {jsonl.shown(context)}")
    return _exchange(
        record,
        where,
        f"{instruction}\n\n{context}" if context.strip() else instruction,
        jsonl.text(record, "output", where),
    )


def _asked(record: dict[str, Any], where: str) -> Conversation:
    return _exchange(
        record, where, jsonl.text(record, "question", where), jsonl.text(record, "answer", where)
    )


def _exchange(record: dict[str, Any], where: str, asked: str, answer: str) -> Conversation:
    messages = ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
    return Conversation(_id(record, where, messages), messages)


def _id(record: dict[str, Any], where: str, content: Any) -> str:
    if record.get("id") is not None:
        return jsonl.text(record, "id", where)
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:32]
