"""Byte-level tokenizers that make each digit a token, as SmolLM2 and StarCoder do.

They are rewritten to the form that `gigatoken` reads.
"""

import re
import unicodedata
from typing import Any

import orjson


def without_digit_step(form: str) -> str | None:
    """Return a tokenizer.json with digits as added tokens in place of the step that isolates them.

    None if it has no such step.
    """
    whole = orjson.loads(form)
    steps = (whole.get("pre_tokenizer") or {}).get("pretokenizers") or []
    vocab = whole["model"].get("vocab")
    if [step["type"] for step in steps] != ["Digits", "ByteLevel"] or not steps[0][
        "individual_digits"
    ]:
        return None
    if (
        whole.get("normalizer") is not None
        or not isinstance(vocab, dict)
        or not all(digit in vocab for digit in "0123456789")
    ):
        return None
    added = {token["content"] for token in whole["added_tokens"]}
    whole["pre_tokenizer"] = steps[1]
    whole["added_tokens"] += [
        _as_added(digit, vocab[digit]) for digit in "0123456789" if digit not in added
    ]
    return orjson.dumps(whole).decode()


def _as_added(content: str, identifier: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": identifier, "content": content, **flags}


def cut_at_numerals(text: str) -> list[str] | None:
    """Cut a text at its numerals that are not ASCII digits: text, numeral, text, …, text.

    None: it has characters that Python's Unicode does not know, which to a tokenizer with a newer
    one may be numerals.
    """
    if text.isascii():
        return [text]
    kinds = {char: unicodedata.category(char) for char in set(text) if char > "\x7f"}
    if "Cn" in kinds.values():
        return None
    numerals = "".join(sorted(char for char, kind in kinds.items() if kind[0] == "N"))
    return re.split(f"([{numerals}])", text) if numerals else [text]
