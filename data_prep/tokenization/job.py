"""The files of one tokenization job, and how it is resumed after it was killed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import IndexedFileWriter
from data_prep.tokenization.stats import Tally
from galen.atomic import partial_path
from galen.run_folder import Identity, RunFiles


@dataclass(slots=True)
class OutputState:
    """How far the working files of one output have come."""

    documents: int = 0
    sequences: int = 0
    tokens: int = 0
    longest: int = 0
    longest_document: int = 0
    """Which document is the longest, from 0."""


@dataclass(slots=True)
class State:
    """How far the job has come: everything up to here is on the disk."""

    range_index: int = 0
    """Index of the file range that is being read."""

    offset: int = 0
    """Decompressed bytes (rows of a table) of it that are done."""

    bytes: int = 0
    """Size of the texts in UTF-8."""

    skipped: dict[str, int] = field(default_factory=dict)
    """Invalid records by reason."""

    examples: list[str] = field(default_factory=list)
    """The first invalid records."""

    outputs: dict[str, OutputState] = field(default_factory=dict)


class Output:
    """One `BASE.bin` and `.idx`, and the working files beside them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bin = Path(f"{base}.bin")
        self.idx = Path(f"{base}.idx")
        self.bin_work, self.idx_work, self.lengths_work, self.counts_work = (
            partial_path(Path(f"{base}.{ending}")) for ending in ("bin", "idx", "lengths", "counts")
        )
        self.writer: IndexedFileWriter
        self.tally: Tally

    def has_working_files(self) -> bool:
        """Return whether the working files of an interrupted run are complete."""
        paths = (self.bin_work, self.lengths_work, self.counts_work)
        return all(path.exists() for path in paths)

    def open(self, dtype: np.dtype[Any], state: OutputState, vocab_size: int) -> None:
        """Open the working files where `state` says; what was written after that is cut off."""
        self.writer = IndexedFileWriter(
            self.bin_work,
            self.lengths_work,
            self.counts_work,
            dtype,
            state.documents,
            state.sequences,
            state.tokens,
        )
        self.tally = Tally(dtype, vocab_size)
        self.tally.read(self.bin_work)


class TokenJob:
    """Names of final and working files (hidden, beside the final ones) of an output prefix.

    Args:
        prefix: of all files.
        names: of the outputs, mostly the JSON keys.
        level: what a sequence is, document or sentence; the files' names end in it.
    """

    def __init__(self, prefix: str | Path, names: Sequence[str], level: str = "document") -> None:
        self.outputs = {name: Output(Path(f"{prefix}_{name}_{level}")) for name in names}
        self.manifest = Path(f"{prefix}_manifest.json")
        self.stats = Path(f"{prefix}_stats.html")
        name = Path(f"{prefix}_{'_'.join(names)}_{level}")
        finals = [path for output in self.outputs.values() for path in (output.bin, output.idx)]
        self.files = RunFiles(name, finals)
        self.restart()

    @contextlib.contextmanager
    def working(self, identity: Identity) -> Iterator[None]:
        """Resume the state of an interrupted run of the same job, if any.

        Remove the working files at the end.
        """
        self._resume(identity)
        yield
        self.remove_working_files()

    def remove_working_files(self) -> None:
        """Remove the working files of a finished job."""
        for output in self.outputs.values():
            output.lengths_work.unlink(missing_ok=True)
            output.counts_work.unlink(missing_ok=True)
        self.files.end()

    def restart(self) -> None:
        """Begin at the beginning of the input."""
        self.state = State(outputs={name: OutputState() for name in self.outputs})

    def _resume(self, identity: Identity) -> None:
        saved = self.files.begin(identity, asdict(self.state))
        if saved is None:
            return
        self.unpublish()  # killed between publish and manifest
        if all(output.has_working_files() for output in self.outputs.values()):
            outputs = {name: OutputState(**state) for name, state in saved.pop("outputs").items()}
            self.state = State(**saved, outputs=outputs)

    def save(self) -> None:
        """Save how far the working files have come; they must be flushed."""
        self.files.save(asdict(self.state))

    def unpublish(self) -> None:
        """Take back what `publish` did, if it did."""
        for output in self.outputs.values():
            for final, work in ((output.bin, output.bin_work), (output.idx, output.idx_work)):
                if final.exists():
                    final.replace(work)

    def publish(self) -> None:
        """Give the working files their final names."""
        self.save()
        for output in self.outputs.values():
            output.bin_work.replace(output.bin)
            output.idx_work.replace(output.idx)
