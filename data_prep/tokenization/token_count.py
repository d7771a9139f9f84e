"""Number of tokens of a text: counted by a tokenizer, or estimated from its bytes."""

from collections.abc import Callable
from functools import cache

BYTES_PER_TOKEN = 4.0
"""UTF-8 bytes per token, for the estimate.

A SentencePiece model of 32,000 pieces makes about one token of 4 bytes of English abstracts.
"""


@cache
def token_counter(tokenizer: str | None) -> Callable[[str], int]:
    """Return a function that counts tokens with the tokenizer of this path, or by estimate."""
    if tokenizer is None:
        return lambda text: round(len(text.encode()) / BYTES_PER_TOKEN)
    from data_prep.tokenization.tokenizer import load_tokenizer

    encode = load_tokenizer(tokenizer).encode
    return lambda text: len(encode([text])[0])
