"""Hashes of word sequences, and an index of those of evaluation items."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.steps.decontamination.items import ItemField
from data_prep.text.hashing import stable_hash
from data_prep.text.words import (
    SPACE_MARKUP,
    UNSPACED,
    WHOLE_WORD,
    WORD,
    is_broken_in_line,
    is_hidden,
    parts_of,
    plain,
)

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MAX_CACHED_WORDS = 1_000_000
_MAX_PARTS = 8
"""Parts of which a word is put together where several words touch at zero-width spaces."""

_WORD_OR_MARKUP = re.compile(f"{SPACE_MARKUP.pattern}|{WHOLE_WORD.pattern}")
UNSPACED_FACTOR = 1.5
"""Characters of an unspaced script needed for each word of another: a Chinese word has 1.5 to 2."""

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


class WordHasher:
    """Hashes of the words of texts, with a cache of words.

    Invisible characters inside a word do not hide it. A hyphen at a line's end may belong to the
    word ("follow-up") or not ("daugh-ter"), one before a space, too, and a zero-width space may
    part words or not: such parts are read as one word if that is one of `words`, or, without these,
    by the rule of `data_prep.text.words.searchable`.

    Args:
        words: hashes of all words of the items that are looked for.
    """

    def __init__(self, words: Collection[int] | None = None) -> None:
        self._cache: dict[str, list[int]] = {}
        self._words = words

    def __call__(self, text: str) -> tuple[Hashes, list[tuple[int, int]]]:
        """Return the hashes of a text's words and their spans.

        The text must be in Unicode's normal form C.
        """
        hashes: list[int] = []
        spans: list[tuple[int, int]] = []
        cache = self._cache
        words = self._words_of(text) if is_hidden(text) else _plain_words(text)
        for word, span in words:
            # a ligature or fraction may give several words
            for value in cache.get(word) or self._hash(word):
                hashes.append(value)
                spans.append(span)
        return np.array(hashes, dtype=np.uint64), spans

    def _words_of(self, text: str) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield the words of a text with hidden breaks as they are written, with their spans."""
        for match in _WORD_OR_MARKUP.finditer(text):
            if match[0][0] in "<&":
                continue
            parts = parts_of(match[0])
            if self._is_one_word(match[0], parts):
                yield match[0], match.span()
            else:
                yield from self._words_in(parts, match.start())

    def _is_one_word(self, written: str, parts: Sequence[tuple[str, int]]) -> bool:
        """Return whether a word as it is written, with hidden breaks, is one word."""
        if len(parts) == 1:
            return True
        if self._words is None and not is_broken_in_line(written):
            return True
        return self._is_known(_join(parts))

    def _words_in(
        self, parts: list[tuple[str, int]], start: int
    ) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield the words of which parts consist: the longest that are known, else single parts."""
        first = 0
        while first < len(parts):
            size = min(_MAX_PARTS, len(parts) - first)
            while size > 1 and not self._is_known(_join(parts[first : first + size])):
                size -= 1
            last, offset = parts[first + size - 1]
            span = (start + parts[first][1], start + offset + len(last))
            yield _join(parts[first : first + size]), span
            first += size

    def _is_known(self, word: str) -> bool:
        words = self._words
        return words is not None and all(value in words for value in self._hash(word))

    def _hash(self, word: str) -> list[int]:
        hashes = self._cache.get(word)
        if hashes is None:
            if len(self._cache) >= _MAX_CACHED_WORDS:
                self._cache.clear()
            joined = _join(parts_of(word))
            hashes = [stable_hash(part) for part in WORD.findall(plain(joined))]
            self._cache[word] = hashes
        return hashes


def _join(parts: Iterable[tuple[str, int]]) -> str:
    """Return the word of which parts, with their offsets, consist."""
    return "".join(part for part, _ in parts)


def normal_form(text: str) -> str:
    """Return the text in Unicode's normal form C, where an accented letter is one character."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def windows(words: Hashes, length: int) -> Hashes:
    """Return the hash of each sequence of `length` words.

    There are len(words) - length + 1 of them, so one when there are exactly `length` words.
    """
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        total = total * _MULTIPLIER + words[offset : offset + count]
    return total ^ (total >> np.uint64(29))


@dataclass(slots=True)
class Index:
    """Sequences of the items, by their length in words.

    `fields` are (file, item, field, words) in order; `words` are the hashes of all their words,
    sorted. `grams[length]` is (hashes sorted, start of each in the entries, entries), an entry
    being (number of the field, position of the sequence in it), both uint32.
    """

    fields: list[tuple[str, str, str, int]]
    grams: dict[int, tuple[Hashes, np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    words: Hashes

    def hasher(self) -> WordHasher:
        """Return the hasher of a document's words."""
        return WordHasher(frozenset(self.words.tolist()))

    def save(self, path: Path) -> None:
        """Write it as one .npz file."""
        arrays: dict[str, Any] = {
            "fields": np.array(self.fields, dtype=str).reshape(-1, 4),
            "words": self.words,
        }
        for length, (hashes, starts, entries) in self.grams.items():
            arrays |= {
                f"hashes{length}": hashes,
                f"starts{length}": starts,
                f"entries{length}": entries,
            }
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            fields = [(a, b, c, int(words)) for a, b, c, words in file["fields"].tolist()]
            lengths = sorted(
                int(name.removeprefix("hashes")) for name in file.files if name.startswith("hashes")
            )
            grams = {
                length: (file[f"hashes{length}"], file[f"starts{length}"], file[f"entries{length}"])
                for length in lengths
            }
            words = file["words"]
        return cls(fields, grams, words)


def build_index(
    items: Iterable[ItemField],
    n_grams: int,
    min_words: int,
    max_item_frequency: int,
    phrases: Sequence[str],
) -> Index:
    """Return the index of items.

    A field of `n_grams` words or more is looked for by all its sequences of that many; one with
    fewer, down to `min_words`, completely. In a field that is mostly in an unspaced script both
    numbers are 1.5 times as many characters. Sequences in `max_item_frequency` different
    items, and those of which phrases make up more than half, are left out.
    """
    hasher = WordHasher()
    phrase_hashes = [hasher(normal_form(phrase))[0] for phrase in phrases]
    fields: list[tuple[str, str, str, int]] = []
    known_words: set[int] = set()
    entries: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        text = normal_form(item.text)
        words, spans = hasher(text)
        factor = UNSPACED_FACTOR if _is_mostly_unspaced(text, spans) else 1.0
        length = min(round(n_grams * factor), len(words))
        if length < round(min_words * factor):
            continue
        known_words.update(words.tolist())
        number = len(fields)
        fields.append((item.file, item.item, item.field, len(words)))
        covered = np.concatenate([[0], np.cumsum(_covered(words, phrase_hashes))])
        for position, gram in enumerate(windows(words, length).tolist()):
            if 2 * (covered[position + length] - covered[position]) <= length:
                entries[length][gram].append((number, position))
    grams = {}
    for length, entries_of in sorted(entries.items()):
        rare = {
            gram: gram_entries
            for gram, gram_entries in entries_of.items()
            if _num_items(gram_entries, fields) < max_item_frequency
        }
        if rare:
            grams[length] = _arrays(rare)
    return Index(fields, grams, np.array(sorted(known_words), dtype=np.uint64))


def _plain_words(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the words of a text without hidden breaks, with their spans."""
    for match in WORD.finditer(text):
        yield match[0], match.span()


def _num_items(entries: Sequence[tuple[int, int]], fields: Sequence[Any]) -> int:
    """Return in how many items a sequence occurs, each of which may have several fields."""
    return len({fields[number][:2] for number, _ in entries})


def _is_mostly_unspaced(text: str, spans: Sequence[tuple[int, int]]) -> bool:
    """Return whether more than half of a text's words are in an unspaced script."""
    num_unspaced = sum(UNSPACED.match(text, start) is not None for start, _ in spans)
    return 2 * num_unspaced > len(spans)


def _arrays(
    entries_of: dict[int, list[tuple[int, int]]],
) -> tuple[Hashes, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the arrays of `Index.grams` for sequences of one length."""
    hashes = np.array(sorted(entries_of), dtype=np.uint64)
    starts = [0]
    entries: list[tuple[int, int]] = []
    for gram in hashes.tolist():
        entries += entries_of[gram]
        starts.append(len(entries))
    return (
        hashes,
        np.array(starts, dtype=np.int64),
        np.array(entries, dtype=np.uint32).reshape(-1, 2),
    )


def _covered(words: Hashes, phrases: Sequence[Hashes]) -> np.ndarray[Any, Any]:
    """Return for each word whether it is in one of the phrases (their hashes)."""
    covered = np.zeros(len(words), dtype=np.int64)
    for phrase in phrases:
        size = len(phrase)
        if size == 0:
            continue
        candidates = words[: max(0, len(words) - size + 1)]
        for position in np.flatnonzero(candidates == phrase[0]).tolist():
            if np.array_equal(words[position : position + size], phrase):
                covered[position : position + size] = 1
    return covered
