"""A tokenizer whose tokens are characters, for models whose own tokenizer is elsewhere.

The ids are Unicode code points, so that ids and text are the same thing in two writings: prompts
are built as for local models, and an endpoint that tokenizes by itself is sent the text.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

_CONVERSATION = "\ue000conversation\ue000"
"""Begins a conversation; private characters that no prompt contains."""


class CharacterTokenizer:
    """The part of a Hugging Face tokenizer that prompts need.

    Args:
        has_chat_template: whether conversations are written as JSON, for the endpoint's own
            template.
    """

    bos_token_id = None
    eos_token_id = None
    name_or_path = ""
    all_special_tokens: tuple[str, ...] = ()

    def __init__(self, has_chat_template: bool) -> None:
        self.chat_template = None
        if has_chat_template:
            self.chat_template = _CONVERSATION + "{{ messages | tojson }}"
        self.special_tokens_map: dict[str, str] = {}

    def encode(self, text: str, **_: Any) -> list[int]:
        """Return the code points of a text."""
        return [ord(character) for character in text]

    def decode(self, ids: Iterable[int], **_: Any) -> str:
        """Return the text of code points."""
        return "".join(map(chr, ids))

    def batch_decode(self, batch: Iterable[Sequence[int]], **_: Any) -> list[str]:
        """Return the texts of code points."""
        return [self.decode(ids) for ids in batch]

    def get_vocab(self) -> dict[str, int]:
        """Return no tokens: what the model's vocabulary holds is not known."""
        return {}

    def get_chat_template(self) -> str:
        """Return the template that writes a conversation as JSON."""
        assert self.chat_template is not None
        return self.chat_template


def messages(text: str) -> list[dict[str, str]]:
    """Return a prompt as messages: those of a conversation, or one of the user."""
    if text.startswith(_CONVERSATION):
        value: list[dict[str, str]] = json.loads(text.removeprefix(_CONVERSATION))
        return value
    return [{"role": "user", "content": text}]
