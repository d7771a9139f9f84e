"""API keys: read from the environment and never written or shown."""

import os

from galen.errors import UsageError

NAMES = ("OPENAI_API_KEY", "S2_API_KEY", "HF_TOKEN", "WANDB_API_KEY")
"""The environment variables that hold keys."""
_SHORTEST = 6
"""Characters of a key worth hiding: placeholders such as "none" occur in many messages."""


def read(name: str) -> str:
    """Return the key in an environment variable, empty if it is not set.

    Raises:
        UsageError: it holds what no key holds and no header may (the message does not show it).
    """
    key = os.environ.get(name, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{name} holds blanks or characters that are not ASCII: it is not a key; set it again"
        )
    return key


def hide(text: str, *further: str) -> str:
    """Return a text, such as what a server answered, with the keys in it blotted out.

    Args:
        text: the text.
        further: names of further environment variables that hold keys.
    """
    for name in (*NAMES, *further):
        key = os.environ.get(name, "").strip()
        if len(key) >= _SHORTEST:
            text = text.replace(key, "[key]")
    return text
