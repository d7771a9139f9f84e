"""What is known of a token file: hash, how often each id occurs, a page with pictures."""

import base64
import hashlib
import html
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import IndexedFile
from data_prep.tokenization.tokenizer import TextTokenizer
from galen import svg
from galen.atomic import write_text


class Tally:
    """Takes the bytes of a `.bin` in order; knows their SHA-256 and how often each id occurs."""

    def __init__(self, dtype: np.dtype[Any], vocab_size: int) -> None:
        self._dtype = dtype
        self._hash = hashlib.sha256()
        self.counts = np.zeros(vocab_size, dtype=np.int64)
        self.bytes = 0

    def add(self, ids: np.ndarray[Any, Any]) -> None:
        """Take the next ids."""
        self._hash.update(np.ascontiguousarray(ids).data)
        self.bytes += ids.nbytes
        found = np.bincount(ids)
        self.counts[: len(found)] += found

    def read(self, path: Path) -> None:
        """Take all of a file."""
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                self.add(np.frombuffer(piece, dtype=self._dtype))

    def sha256(self) -> str:
        """Return the hash of all bytes so far."""
        return self._hash.hexdigest()


def id_counts(tally: Tally, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Return the manifest's statistics of a file's ids.

    How many are unknown, how many of the vocabulary are never used, and which are.
    """
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
    """Return what `pack_used` packed, a boolean for each id."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    return np.unpackbits(bits, count=vocab_size, bitorder="little").astype(bool)


def write_page(
    path: Path, files: Mapping[str, Path], tallies: Mapping[str, Tally], tokenizer: TextTokenizer
) -> None:
    """Write a small HTML page.

    It shows lengths of documents, frequencies of ids, the most used tokens and unused ids.
    """
    sections = []
    for name, base in files.items():
        counts = tallies[name].counts
        rows = []
        for n in np.argsort(-counts, kind="stable")[:25]:
            if counts[n]:
                text = html.escape(repr(tokenizer.decode([int(n)]))[1:-1])
                rows.append(
                    f"<tr><td>{n}</td><td><code>{text}</code></td><td>{counts[n]:,}</td></tr>"
                )
        never = np.flatnonzero(counts == 0)
        shown = ", ".join(
            f"{n} <code>{html.escape(tokenizer.token(int(n)) or '')}</code>" for n in never[:100]
        )
        with svg.style():
            lengths = _lengths_picture(IndexedFile(base, with_data=False))
            ranks = _ranks_picture(counts)
        more = " …" if len(never) > 100 else ""
        sections.append(
            f"<h2>{html.escape(base.name)}</h2>{lengths}{ranks}"
            "<h3>Most used</h3>"
            f"<table><tr><th>id</th><th>text</th><th>times</th></tr>{''.join(rows)}</table>"
            f"<h3>Never used: {len(never):,} of {len(counts):,} ids</h3><p>{shown}{more}</p>"
        )
    style = (
        "body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:0"
        " 1em;text-align:left}svg{max-width:100%;height:auto}"
    )
    title = html.escape(path.stem)
    write_text(
        path,
        f"<!doctype html><meta charset=utf-8><title>{title}</title>"
        f"<style>{style}</style>{''.join(sections)}\n",
    )


def _lengths_picture(file: IndexedFile) -> str:
    edges = 2.0 ** np.arange(0, 31.5, 0.5)
    documents = np.zeros(len(edges) - 1)
    tokens = np.zeros(len(edges) - 1)
    for lengths in file.document_lengths():
        documents += np.histogram(lengths, edges)[0]
        tokens += np.histogram(lengths, edges, weights=lengths)[0]
    used = np.flatnonzero(documents)
    figure, axes = _figure()
    if len(used):
        inside = slice(used[0], used[-1] + 1)
        widths = np.diff(edges)[inside]
        axes.bar(
            edges[:-1][inside],
            documents[inside] / documents.sum(),
            widths,
            align="edge",
            alpha=0.6,
            label="documents",
        )
        axes.bar(
            edges[:-1][inside],
            tokens[inside] / max(tokens.sum(), 1),
            widths,
            align="edge",
            alpha=0.4,
            label="tokens in them",
        )
        axes.set_xscale("log", base=2)
        axes.legend()
    axes.set_xlabel("tokens of a document")
    axes.set_ylabel("share")
    return svg.render(figure)


def _ranks_picture(counts: np.ndarray[Any, Any]) -> str:
    figure, axes = _figure()
    used = np.sort(counts[counts > 0])[::-1]
    axes.loglog(np.arange(1, len(used) + 1), used)
    axes.set_xlabel("ids, the most used first")
    axes.set_ylabel("times")
    return svg.render(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    return figure, figure.subplots()
