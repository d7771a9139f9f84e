"""Files and state of a tokenization job, which is resumed after a kill."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tokenization.indexed_dataset import IndexedFileWriter
from data_prep.tokenization.stats import Tally
from galen.atomic import partial_path
from galen.run_folder import RunFiles
from galen.run_identity import Identity


@dataclass(slots=True)
class OutputState:
    """Contents of the working files of an output."""

    documents: int = 0
    sequences: int = 0
    tokens: int = 0
    longest: int = 0
    longest_document: int = 0
    """Number of the longest document, from 0."""


@dataclass(slots=True)
class State:
    """Progress of a job: everything up to here is on the disk."""

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
        self.bin_work = partial_path(self.bin)
        self.idx_work = partial_path(self.idx)
        self.lengths_work = partial_path(Path(f"{base}.lengths"))
        self.counts_work = partial_path(Path(f"{base}.counts"))
        self.writer: IndexedFileWriter
        self.tally: Tally

    def has_working_files(self) -> bool:
        """Return whether the working files of an interrupted run are complete."""
        paths = (self.bin_work, self.lengths_work, self.counts_work)
        return all(path.exists() for path in paths)

    def open(self, dtype: np.dtype[Any], state: OutputState, vocab_size: int) -> None:
        """Open the working files, truncated to the contents of `state`."""
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
    """The final files of an output prefix and their hidden working files.

    Args:
        prefix: beginning of all file names.
        names: names of the outputs, usually the JSON keys.
        level: "document" or "sentence", the content of a sequence; the file names end in it.
    """

    def __init__(self, prefix: str | Path, names: Sequence[str], level: str = "document") -> None:
        self.outputs = {name: Output(Path(f"{prefix}_{name}_{level}")) for name in names}
        self.manifest = Path(f"{prefix}_manifest.json")
        self.stats = Path(f"{prefix}_stats.html")
        name = Path(f"{prefix}_{'_'.join(names)}_{level}")
        finals: list[Path] = []
        for output in self.outputs.values():
            finals += [output.bin, output.idx]
        self.files = RunFiles(name, finals)
        self.restart()

    @contextlib.contextmanager
    def working(self, identity: Identity) -> Iterator[None]:
        """Resume an interrupted run of the same job, if there is one.

        The working files are removed at the end.
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
        """Start from the beginning of the input."""
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
        """Save the state; the working files must be flushed."""
        self.files.save(asdict(self.state))

    def unpublish(self) -> None:
        """Undo `publish`: give the final files their working names again."""
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
