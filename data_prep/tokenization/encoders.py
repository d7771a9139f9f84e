"""Faster encoders, used only if they give the same ids as the reference tokenizer.

Two encoders. `gigatoken` (byte-level BPE and SentencePiece BPE, in Rust). For SentencePiece BPE
without it, a word cache: no token of such a vocabulary has a space behind a non-space, so a word
with the spaces before it is encoded the same in any context, and most words have been seen before.
Either is compared with the reference on difficult strings and on a sample of the input at every
start, and on a document now and then while it works.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from data_prep.tokenization import digits
from data_prep.tokenization.sequences import Ids
from data_prep.tokenization.tokenizer import (
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    TextTokenizer,
)

CACHE_BYTES = 256 << 20
"""Maximum size of the word cache of a process; gigatoken 0.10 itself has no limit."""

TOTAL_CACHE_BYTES = 640 << 20
"""The same for all processes together, but at least `MIN_CACHE_BYTES` for each."""

MIN_CACHE_BYTES = 64 << 20
"""With less, gigatoken, which takes half a second to clear its cache, would do so too often."""

CACHED_WORD_BYTES = 512
"""Bytes of memory of a cached word, in Python's objects."""

PROBES = (
    *(
        "",
        " ",
        "  ",
        "   three spaces",
        "a  b   c    d",
        " end ",
        "two spaces  ",
        "\n\n x \t y",
        "\r\n a\r",
        "a \n b",
        "tab\t\ttab",
    ),
    *(
        "肺炎の治療について ≥ 3 µg/mL ± 0.5",
        "é é ñ ñ combined",
        "zero\u200bwidth\u200dand\ufeffmarks",
        "\u00a0nbsp\u3000wide\u2009thin",
    ),
    *(
        "🙂🙂 👨‍👩‍👧 🇨🇭",
        "ﬁne ligature ﬀ Ⅻ ½ ①",
        "α-helix β₂ CO₂ 10⁻³ m²",
        "العربية हिन्दी ไทย ภาษา русский",
        "\U0010ffff\ue000\ufffd",
    ),
    *(
        "x" * 3000,
        "ab" * 2000,
        "1234567890 12,345.67 1e-9",
        "don't we'll I'M THEY'RE",
        "'s 's  's",
        "CamelCaseWords and_snake_case",
    ),
    *("<unk>", "<s> a </s>", "<0x0A>", "▁under▁ ▁", "a▁b", "\x01\x02\x1f\x7f\x80\x9f"),
    *("((([[[{{{\\///***", "!!!???...,,,;;;", "https://doi.org/10.1000/xyz?a=b&c=d%20e"),
)
"""Strings on which tokenizers differ.

White space, scripts, characters of several bytes, long words, pieces written out, punctuation.
"""


class Encoder(Protocol):
    """A way to encode text."""

    name: str

    def encode(self, texts: Sequence[str]) -> Iterable[Ids]:
        """Return the ids of each text, one after the other."""


class ReferenceEncoder:
    """The tokenizer itself."""

    name = "reference"

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text."""
        return [np.array(ids, dtype=np.uint32) for ids in self._tokenizer.encode(texts)]


class GigatokenEncoder:
    """`gigatoken`; texts that it would take differently go to the reference.

    Raises:
        ValueError, RuntimeError: it does not know this kind of tokenizer.
        ImportError: it is not installed.
    """

    name = "gigatoken"

    def __init__(
        self, tokenizer: TextTokenizer, avoid_added: bool = False, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._cache_bytes = cache_bytes
        self._reference = ReferenceEncoder(tokenizer)
        self._splitter: Any = getattr(tokenizer, "splitter", None)
        self._special = {
            token: np.array([token_id], dtype=np.uint32)
            for token, token_id in tokenizer.special.items()
        }
        self._beyond: int | None = None
        self._numerals: dict[str, Ids] | None = None
        """Ids of numerals at which the text is split."""
        if isinstance(tokenizer, SentencePieceTokenizer):
            self._json, self.added = _sentencepiece_json(tokenizer)
        else:
            assert isinstance(tokenizer, HuggingFaceTokenizer)
            self._json = tokenizer.to_json()
            self.added = tokenizer.added_tokens()
            self._isolate_digits()
            if tokenizer.lacks_bytes():
                self._beyond = tokenizer.vocab_size
                self._json = _complete_bytes(self._json, tokenizer.vocab_size)
        self._avoid = (
            re.compile("|".join(map(re.escape, self.added))) if avoid_added and self.added else None
        )
        self._load()
        self._calls = 0

    def encode(self, texts: Sequence[str]) -> Iterator[Ids]:
        """Return the ids of each text, one after the other, so that they need not be held."""
        self._calls += 1
        if self._calls % 8 == 0 and _resident() > self._resident + self._cache_bytes:
            self._load()
        if self._avoid is not None or self._beyond is not None or self._numerals is not None:
            return map(self._encode_or_refer, texts)
        return map(self._encode if self._splitter is None else self._encode_split, texts)

    def _isolate_digits(self) -> None:
        """Prepare for a tokenizer that makes each digit a token.

        gigatoken gets that step in another way, and the rest is done here.
        """
        rewritten = digits.without_digit_step(self._json)
        if rewritten is not None:
            self._json = rewritten
            self._numerals = {}

    def _encode_numerals(self, text: str) -> Ids | None:
        """Return the ids of a text split at numerals, None if the reference is to encode it."""
        assert self._numerals is not None
        segments = digits.split_at_numerals(text)
        if segments is None:
            return None
        if len(segments) == 1:
            return self._encode(text)
        for numeral in segments[1::2]:
            if numeral not in self._numerals:
                self._numerals[numeral] = self._reference.encode([numeral])[0]
        return np.concatenate(
            [
                self._numerals[segment] if n % 2 else self._encode(segment)
                for n, segment in enumerate(segments)
            ]
        )

    def _encode_or_refer(self, text: str) -> Ids:
        if self._avoid is None or not self._avoid.search(text):
            ids = (
                self._encode_split(text) if self._numerals is None else self._encode_numerals(text)
            )
            if ids is not None and (self._beyond is None or not (ids >= self._beyond).any()):
                return ids
        return self._reference.encode([text])[0]

    def _load(self) -> None:
        from gigatoken import Tokenizer

        self._encode: Any = None  # let go of the old one first
        self._encode = Tokenizer.from_json(self._json).backend.encode
        self._resident = _resident()

    def _encode_split(self, text: str) -> Ids:
        segments = self._splitter.split(text) if self._splitter else [text]
        if len(segments) == 1:
            return self._encode(text)
        return np.concatenate(
            [
                self._special[segment] if n % 2 else self._encode(segment)
                for n, segment in enumerate(segments)
            ]
        )


class CachedBpeEncoder:
    """A SentencePiece BPE model with a word cache.

    Raises:
        ValueError: its vocabulary or its normalization does not allow it.
    """

    name = "cached_bpe"

    def __init__(self, tokenizer: TextTokenizer, cache_bytes: int = CACHE_BYTES) -> None:
        if not isinstance(tokenizer, SentencePieceTokenizer):
            raise ValueError("this is not a SentencePiece model")
        self._processor = tokenizer.processor
        self._special = tokenizer.special
        self._splitter: Any = tokenizer.splitter
        pieces = [self._processor.id_to_piece(n) for n in range(self._processor.vocab_size())]
        if any("▁" in piece.lstrip("▁") for piece in pieces):
            raise ValueError("its vocabulary has tokens across words")
        self._space = self._processor.piece_to_id("▁")
        self._cache: dict[str, list[int]] = {}
        self._max_words = cache_bytes // CACHED_WORD_BYTES

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text."""
        return [np.array(self._encode(text), dtype=np.uint32) for text in texts]

    def _encode(self, text: str) -> list[int]:
        if self._splitter is None:
            return self._words(text)
        result: list[int] = []
        for n, segment in enumerate(self._splitter.split(text)):
            result += [self._special[segment]] if n % 2 else self._words(segment)
        return result

    def _words(self, text: str) -> list[int]:
        if not text:
            return []
        result: list[int] = []
        cache = self._cache
        for word in _WORD.findall(f"▁{text.replace(' ', '▁')}"):
            ids = cache.get(word)
            if ids is None:
                # the model puts a space before each text: give it the word without its first one
                ids = self._processor.encode(word[1:]) if len(word) > 1 else [self._space]
                if len(cache) >= self._max_words:
                    cache.clear()
                if len(word) < 100:
                    cache[word] = ids
            result += ids
        return result


_WORD = re.compile("▁+[^▁]*")


def choose_encoder(
    tokenizer: TextTokenizer, sample: Sequence[str], name: str = "auto", processes: int = 1
) -> tuple[Encoder, str | None]:
    """Return the fastest encoder that gives the reference's ids, and why it is no faster one.

    The ids are compared on difficult strings and on `sample`.

    `name` is "auto", or the only encoder to try; `processes` is how many will use a copy of it and
    share the memory of the word cache. The second value is None when the first choice is taken.
    """
    reference = ReferenceEncoder(tokenizer)
    if name == "reference":
        return reference, None
    reasons: list[str] = []
    texts = [*PROBES, *_added_probes(tokenizer), *sample]
    expected = reference.encode(texts)
    cache_bytes = max(min(CACHE_BYTES, TOTAL_CACHE_BYTES // processes), MIN_CACHE_BYTES)
    for candidate, make in _candidates(tokenizer, cache_bytes):
        if name not in ("auto", candidate):
            continue
        try:
            encoder = make()
            text = _difference(encoder, texts, expected)
        except (ImportError, ValueError, RuntimeError, OSError, KeyError) as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            reasons.append(f"{candidate}: {message}")
            continue
        if text is None:
            return encoder, "; ".join(dict.fromkeys(reasons)) or None
        reasons.append(f"{candidate} gives different ids for {text[:40]!r}")
    return reference, "; ".join(dict.fromkeys(reasons)) or "there is none for this tokenizer"


def _candidates(tokenizer: TextTokenizer, cache_bytes: int) -> Iterator[tuple[str, Any]]:
    yield "gigatoken", lambda: GigatokenEncoder(tokenizer, cache_bytes=cache_bytes)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        yield (
            "gigatoken",
            lambda: GigatokenEncoder(tokenizer, avoid_added=True, cache_bytes=cache_bytes),
        )
    else:
        yield "cached_bpe", lambda: CachedBpeEncoder(tokenizer, cache_bytes)


def _difference(encoder: Encoder, texts: Sequence[str], expected: Sequence[Ids]) -> str | None:
    """Return the first text for which an encoder gives different ids."""
    for text, ids, reference in zip(texts, encoder.encode(texts), expected, strict=True):
        if not np.array_equal(ids, reference):
            return text
    return None


def _added_probes(tokenizer: TextTokenizer) -> Iterable[str]:
    """Return strings with the vocabulary's special tokens in the midst of text."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        tokens = tokenizer.added_tokens()
    else:
        tokens = [
            *tokenizer.special,
            *(token for n in range(10) if (token := tokenizer.token(n)) and token.startswith("<")),
        ]
    for token in [*tokens[:20], *tokens[-20:]]:
        yield from (
            f"the {token} drug",
            f"the{token}drug",
            f"{token}{token}\n",
            f" {token}  end",
            f"x{token[:-1]} {token[1:]}",
        )


def _sentencepiece_json(tokenizer: SentencePieceTokenizer) -> tuple[str, list[str]]:
    """Return a SentencePiece model as a tokenizer.json, and its added tokens.

    Control pieces written out in a text are text there.
    """
    from gigatoken._load.sentencepiece import sentencepiece_to_tokenizer_json

    converted = orjson.loads(sentencepiece_to_tokenizer_json(tokenizer.path.read_bytes()))
    added = [token for token in converted["added_tokens"] if not token["special"]]
    converted["added_tokens"] = added
    return orjson.dumps(converted).decode(), [token["content"] for token in added]


def _complete_bytes(tokenizer_json: str, vocab_size: int) -> str:
    """Add the missing bytes to a byte-level vocabulary, with ids from `vocab_size` on.

    gigatoken wants all. A text that gets such an id goes to the reference, which leaves these bytes
    out or calls them unknown.
    """
    from tokenizers import pre_tokenizers

    content = orjson.loads(tokenizer_json)
    vocab = content["model"]["vocab"]
    missing = sorted(byte for byte in pre_tokenizers.ByteLevel.alphabet() if byte not in vocab)
    vocab.update({byte: vocab_size + n for n, byte in enumerate(missing)})
    return orjson.dumps(content).decode()


def _resident() -> int:
    """Return this process's resident memory in bytes, without shared memory and mapped files."""
    try:
        resident, shared = map(
            int, Path("/proc/self/statm").read_text(encoding="ascii").split()[1:3]
        )
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
