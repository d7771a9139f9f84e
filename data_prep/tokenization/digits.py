"""Byte-level tokenizers that make each digit a token, as SmolLM2 and StarCoder do.

They are rewritten so that `gigatoken` can read them.
"""

import re
import unicodedata
from typing import Any

import orjson


def without_digit_step(tokenizer_json: str) -> str | None:
    """Return a tokenizer.json in which added tokens replace the step that isolates digits.

    None if it has no such step.
    """
    content = orjson.loads(tokenizer_json)
    steps = (content.get("pre_tokenizer") or {}).get("pretokenizers") or []
    vocab = content["model"].get("vocab")
    if [step["type"] for step in steps] != ["Digits", "ByteLevel"]:
        return None
    if not steps[0]["individual_digits"] or content.get("normalizer") is not None:
        return None
    if not isinstance(vocab, dict) or not all(digit in vocab for digit in "0123456789"):
        return None
    added = {token["content"] for token in content["added_tokens"]}
    content["pre_tokenizer"] = steps[1]
    content["added_tokens"] += [
        _as_added(digit, vocab[digit]) for digit in "0123456789" if digit not in added
    ]
    return orjson.dumps(content).decode()


def _as_added(text: str, token_id: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": token_id, "content": text, **flags}


def split_at_numerals(text: str) -> list[str] | None:
    """Split a text at its numerals that are not ASCII digits: text, numeral, text, …, text.

    None if it has characters that Python's version of Unicode lacks: they may be numerals in the
    tokenizer's version.
    """
    if text.isascii():
        return [text]
    categories = {char: unicodedata.category(char) for char in set(text) if char > "\x7f"}
    if "Cn" in categories.values():
        return None
    numerals = "".join(sorted(char for char, category in categories.items() if category[0] == "N"))
    return re.split(f"([{numerals}])", text) if numerals else [text]
