"""Statistics of a token file: its hash, the frequency of each id, a page with figures."""

import base64
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import IndexedFile
from data_prep.tokenization.tokenizer import TextTokenizer
from galen import page, svg
from galen.atomic import write_text

MOST_USED = 25
"""Tokens in the page's table of the most frequent ones."""
UNUSED = 100
"""Tokens in its list of unused ones."""


class Tally:
    """SHA-256 and id frequencies of a `.bin`, whose contents are added in order."""

    def __init__(self, dtype: np.dtype[Any], vocab_size: int) -> None:
        self._dtype = dtype
        self._hash = hashlib.sha256()
        self.counts = np.zeros(vocab_size, dtype=np.int64)
        self.bytes = 0

    def add(self, ids: np.ndarray[Any, Any]) -> None:
        """Add the next ids."""
        self._hash.update(np.ascontiguousarray(ids).data)
        self.bytes += ids.nbytes
        frequencies = np.bincount(ids)
        self.counts[: len(frequencies)] += frequencies

    def read(self, path: Path) -> None:
        """Add all ids of a file."""
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                self.add(np.frombuffer(block, dtype=self._dtype))

    def sha256(self) -> str:
        """Return the hash of all bytes so far."""
        return self._hash.hexdigest()


def id_counts(tally: Tally, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Return the manifest's statistics of a file's ids: unknown, unused and used ones."""
    total = int(tally.counts.sum())
    unknown = 0 if tokenizer.unknown is None else int(tally.counts[tokenizer.unknown])
    used = tally.counts > 0
    return {
        "unknown": unknown,
        "unknown_rate": unknown / total if total else 0.0,
        "ids_never_used": int((~used).sum()),
        "ids_used": pack_used(used),
    }


def pack_used(used: np.ndarray[Any, Any]) -> str:
    """Return the used ids (a boolean for each of the vocabulary) as text.

    Bits, the lowest id first, by zlib, in base64.
    """
    return base64.b64encode(
        zlib.compress(np.packbits(used, bitorder="little").tobytes(), 9)
    ).decode("ascii")


def unpack_used(text: str, vocab_size: int) -> np.ndarray[Any, Any]:
    """Return the argument of `pack_used`, a boolean for each id."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    return np.unpackbits(bits, count=vocab_size, bitorder="little").astype(bool)


def write_page(
    path: Path, files: Mapping[str, Path], tallies: Mapping[str, Tally], tokenizer: TextTokenizer
) -> None:
    """Write an HTML page: document lengths, token frequencies, most used and unused tokens."""
    sections = [
        _section(base, tallies[name].counts, tokenizer, f"file-{number}")
        for number, (name, base) in enumerate(files.items())
    ]
    html = page.render(
        Path(__file__).parent / "stats.html.j2", title=f"Tokens of {path.stem}", sections=sections
    )
    write_text(path, html)


def _section(
    base: Path, counts: np.ndarray[Any, Any], tokenizer: TextTokenizer, name: str
) -> dict[str, Any]:
    """Return a token file's values for the template; `name` is unique on the page."""
    file = IndexedFile(base, with_data=False)
    most_used = [int(n) for n in np.argsort(-counts, kind="stable")[:MOST_USED] if counts[n]]
    unused = np.flatnonzero(counts == 0)
    with svg.style():
        lengths = _lengths_figure(file, f"{name}-lengths")
        frequencies = _frequencies_figure(counts, f"{name}-frequencies")
    return {
        "name": base.name,
        "tokens": int(counts.sum()),
        "lengths": lengths,
        "frequencies": frequencies,
        "most_used": [(n, repr(tokenizer.decode([n]))[1:-1], int(counts[n])) for n in most_used],
        "unused": [(int(n), tokenizer.token(int(n)) or "") for n in unused[:UNUSED]],
        "num_unused": len(unused),
        "vocab_size": len(counts),
    }


def _lengths_figure(file: IndexedFile, name: str) -> str:
    edges = 2.0 ** np.arange(0, 31.5, 0.5)
    documents = np.zeros(len(edges) - 1)
    tokens = np.zeros(len(edges) - 1)
    for lengths in file.document_lengths():
        documents += np.histogram(lengths, edges)[0]
        tokens += np.histogram(lengths, edges, weights=lengths)[0]
    figure, axes = _axes()
    used = np.flatnonzero(documents)
    if len(used):
        inside = slice(used[0], used[-1] + 1)
        widths = np.diff(edges)[inside]
        for values, label, color in (
            (documents, "documents", svg.FIRST),
            (tokens, "tokens in them", svg.SECOND),
        ):
            fractions = 100 * values[inside] / max(values.sum(), 1)
            axes.bar(
                edges[:-1][inside],
                fractions,
                widths,
                align="edge",
                alpha=0.6,
                label=label,
                color=color,
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend()
    axes.set_xlabel("tokens in a document")
    axes.set_ylabel("%")
    return svg.render(figure, name)


def _frequencies_figure(counts: np.ndarray[Any, Any], name: str) -> str:
    figure, axes = _axes()
    used = np.sort(counts[counts > 0])[::-1]
    axes.loglog(np.arange(1, len(used) + 1), used, color=svg.FIRST)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter("")
    axes.set_xlabel("token ids by rank")
    axes.set_ylabel("occurrences")
    return svg.render(figure, name)


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(svg.WIDTH, 2.8))
    return figure, figure.subplots()
