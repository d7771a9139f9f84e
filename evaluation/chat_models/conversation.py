"""Prompts as conversations with one model: its chat template, system prompt and thinking."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.chat_models import chat_template, thinking
from evaluation.chat_models.thinking import Markers
from evaluation.prompts.template import Prompt, Turns
from evaluation.protocols.protocol import Protocol
from galen.errors import DataError, UsageError

NO_TEMPLATE = "none"
OWN_TEMPLATE = "auto"
Message = dict[str, str]
logger = logging.getLogger(__name__)


def read_template(name: str) -> str:
    """Return the chat template in a file.

    Raises:
        UsageError: the file is missing, empty or not UTF-8.
    """
    try:
        template = Path(name).read_text(encoding="utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"--chat-template: {name} is not UTF-8: {error}") from None
    except OSError:
        raise UsageError(
            f"--chat-template: there is no file {name}; auto is the tokenizer's own template, none"
            " is plain text"
        ) from None
    if not template:
        raise UsageError(f"--chat-template: {name} is empty")
    return template


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """How one model is asked."""

    tokenizer: Any
    template: str = ""
    """Jinja; "" for plain text."""
    system_prompt: str = ""
    as_turns: bool = False
    """Whether few-shot examples are turns of their own, not a part of the user's message."""
    variables: Mapping[str, Any]
    """Further variables of the template."""
    keeps_turns: bool = True
    """Whether the template writes all messages of user and assistant, not the last one alone."""
    supports_system: bool = True
    """Whether the template takes a system message; else it begins the user's first message."""
    markers: Markers | None = None
    """Around the model's thinking; None if it has none."""
    thinks: bool = True
    """Whether the model may think before its answer; else a block that is opened is closed."""

    def prompt(self, prompt: Prompt) -> Prompt:
        """Return a prompt as the model reads it.

        Raises:
            DataError: the template refuses the conversation.
        """
        if not self.template:
            return prompt
        text = self.render(self.messages(prompt))
        continuations = {
            letter: answer.removeprefix(prompt.target_delimiter)
            for letter, answer in prompt.continuations.items()
        }
        return replace(
            prompt,
            text=text,
            continuations=continuations,
            target_delimiter="",
            is_conversation=True,
        )

    def render(self, messages: Sequence[Message], open_answer: bool = True) -> str:
        """Return messages as text, which ends where the assistant's next message begins.

        Args:
            messages: the conversation.
            open_answer: False where the text ends with the last message, which is continued.

        Raises:
            DataError: the template refuses the conversation.
        """
        accepted = self._accepted(messages)
        if not self.keeps_turns and any(message["role"] == "assistant" for message in accepted):
            raise DataError(
                "the chat template leaves out earlier messages, and so few-shot examples as turns;"
                " give --no-fewshot-as-multiturn"
            )
        text = chat_template.render(
            self.tokenizer, accepted, open_answer, self.template, self.variables
        )
        if not open_answer:
            last = accepted[-1]["content"].rstrip()
            return text[: text.rindex(last) + len(last)]
        if self.markers is not None and not self.thinks:
            text = thinking.closed(text, self.markers)
        return text

    def messages(self, prompt: Prompt) -> list[Message]:
        """Return the messages of a prompt."""
        return self._accepted(messages(prompt, self.system_prompt, self.as_turns))

    def _accepted(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages that the template accepts."""
        if self.supports_system or messages[0]["role"] != "system" or len(messages) == 1:
            return list(messages)
        system, user, *others = messages
        content = _delimited(system["content"], user["content"])
        return [{"role": "user", "content": content}, *others]

    @property
    def has_thinking(self) -> bool:
        """Return whether answers may begin with thinking whose markers are known."""
        return self.thinks and self.markers is not None

    def starts_open(self, prompt: Prompt) -> bool:
        """Return whether a prompt ends within the model's thinking."""
        return self.markers is not None and thinking.is_open(prompt.text, self.markers)

    def record(self) -> dict[str, Any]:
        """Return what is recorded of it beside the protocol's settings."""
        if not self.template:
            return {"template": NO_TEMPLATE}
        markers = self.markers
        return {
            "template_sha256": hashlib.sha256(self.template.encode()).hexdigest(),
            "variables": dict(self.variables),
            "system_role": "system" if self.supports_system else "user",
            "thinking_markers": [markers.opening, markers.closing] if markers else None,
        }


def messages(prompt: Prompt, system_prompt: str = "", as_turns: bool = False) -> list[Message]:
    """Return a prompt as messages, as lm-evaluation-harness builds them.

    Args:
        prompt: rendered by a prompt template.
        system_prompt: precedes the task's description in the system message.
        as_turns: few-shot examples become messages of user and assistant.
    """
    turns = prompt.turns or Turns(prompt.text)
    result: list[Message] = []
    system = _delimited(system_prompt, turns.system)
    if system:
        result.append({"role": "system", "content": system})
    if not as_turns:
        text = prompt.text.removeprefix(turns.system)
        return [*result, {"role": "user", "content": text}]
    for question, answer in turns.examples:
        result.append({"role": "user", "content": question})
        result.append({"role": "assistant", "content": answer})
    return [*result, {"role": "user", "content": turns.question}]


def create(protocol: Protocol, tokenizer: Any) -> Conversation:
    """Return how a model is asked under a protocol.

    Raises:
        UsageError: a file is missing, or the tokenizer has several templates and no default.
        DataError: the template refuses a question.
    """
    template = _template(protocol, tokenizer)
    thinks = protocol.scoring == "generation" and protocol.enable_thinking is not False
    variables: dict[str, Any] = {}
    if protocol.enable_thinking is not None or protocol.scoring != "generation":
        variables["enable_thinking"] = thinks
    variables |= protocol.chat_template_kwargs
    markers = None
    if protocol.thinking_markers is not None:
        markers = Markers(*protocol.thinking_markers)
    elif template:
        markers = thinking.detect(template, tokenizer.get_vocab())
    if protocol.thinking_budget is not None and not (thinks and markers):
        reason = "this model's thinking has no known markers, see --thinking-markers"
        if not thinks:
            reason = "thinking is off, see --chat-template-kwargs"
        logger.warning(f"--thinking-budget has no effect: {reason}")
    conversation = Conversation(
        tokenizer=tokenizer,
        template=template,
        system_prompt=protocol.system_prompt,
        as_turns=protocol.fewshot_as_multiturn,
        variables=variables,
        markers=markers,
        thinks=thinks,
    )
    if not template:
        return conversation
    conversation = replace(conversation, keeps_turns=_keeps_turns(conversation))
    if _accepts_system(conversation):
        return conversation
    logger.info("the chat template takes no system message: it begins the user's first message")
    return replace(conversation, supports_system=False)


def _template(protocol: Protocol, tokenizer: Any) -> str:
    """Return the chat template of a protocol, "" for none."""
    if protocol.chat_template == NO_TEMPLATE:
        return ""
    if protocol.chat_template != OWN_TEMPLATE:
        return chat_template.with_fixed_date(read_template(protocol.chat_template))
    if not tokenizer.chat_template:
        logger.warning("this tokenizer has no chat template: prompts are plain text")
        return ""
    try:
        own = tokenizer.get_chat_template()
    except ValueError as error:  # several, none of which is the default
        message = str(error).splitlines()[0]
        raise UsageError(f"--chat-template: {message}; give the file of one") from None
    return chat_template.with_fixed_date(own)


def _accepts_system(conversation: Conversation) -> bool:
    """Return whether the template renders a system message, and does not leave it out.

    Raises:
        DataError: it refuses even a question without one.
    """

    def render(messages: list[Message]) -> str:
        return chat_template.render(
            conversation.tokenizer, messages, True, conversation.template, conversation.variables
        )

    question = {"role": "user", "content": "\ue000"}
    rendered = render([question])
    if "\ue000" not in rendered:
        raise DataError(
            "the chat template leaves out the user's message: the model would not see the question;"
            " give another one"
        )
    split = chat_template.split_marks(conversation.tokenizer, rendered)
    if split:
        logger.warning(
            f"the chat template writes {', '.join(split)}, which this tokenizer splits into several"
            " tokens: the model was not trained with it"
        )
    try:
        return "\ue001" in render([{"role": "system", "content": "\ue001"}, question])
    except DataError:
        return False


def _keeps_turns(conversation: Conversation) -> bool:
    """Return whether the template writes all turns; one that refuses several says so itself."""
    contents = ("\ue000", "\ue001", "\ue002")
    roles = ("user", "assistant", "user")
    turns = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]
    try:
        text = chat_template.render(
            conversation.tokenizer, turns, True, conversation.template, conversation.variables
        )
    except DataError:
        return True
    return all(content in text for content in contents)


def _delimited(first: str, second: str) -> str:
    """Return two texts with a blank line between them, where neither has white space there."""
    if not first or not second or first[-1].isspace() or second[0].isspace():
        return first + second
    return f"{first}\n\n{second}"
