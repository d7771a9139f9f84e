"""Writes an iteration of a Megatron checkpoint as a Hugging Face folder, a piece at a time."""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints_convert import families
from checkpoints_convert.families import FAMILIES
from checkpoints_convert.family import Family
from checkpoints_convert.hf_folder import INDEX, check_vocabulary, copy_companions, header
from checkpoints_convert.importing import DTYPES
from checkpoints_convert.input_hashes import InputHashes
from checkpoints_convert.mappings import hf_shapes
from checkpoints_convert.output_file import OutputFile
from checkpoints_convert.read_ahead import Piece, ReadAhead
from checkpoints_convert.shapes import VOCABULARY
from checkpoints_convert.steps import Step, begin, finished, record, run_steps
from checkpoints_convert.units import Unit, hf_pieces, padded_shape, units
from galen.atomic import write_text
from galen.errors import DataError
from megatron_ext import architecture as architectures
from megatron_ext import checkpoint_folder
from megatron_ext.architecture import Architecture
from megatron_ext.torch_dist import TorchDist

STAGE = "megatron_to_hf"


@dataclass(frozen=True)
class Export:
    """What to export and how."""

    megatron: Path
    iteration: int | None = None
    hf: Path | None = None
    as_family: str | None = None
    dtype: str | None = None
    shard_bytes: int = 5 * 10**9


@dataclass(frozen=True)
class WriteShard(Step):
    """Writes some units into one safetensors file."""

    folder: Path
    units: tuple[Unit, ...]
    architecture: Architecture
    dtype: torch.dtype | None

    def run(self, output: OutputFile, reader: ReadAhead) -> dict[str, int]:
        """Write the file and return the size of each of its tensors in bytes."""
        source = TorchDist(self.folder)
        tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        for unit in self.units:
            dtype = self.dtype or source.dtype(unit.megatron, unit.layer)
            tensors |= {name: (dtype, size) for name, size in zip(unit.hf, hf_shapes(unit.mapping, self.architecture), strict=True)}
        output.write(header(tensors))
        for rows in reader.read(piece for unit in self.units for piece in self._pieces(source, unit)):
            output.write(rows.to(self.dtype or rows.dtype).view(-1).view(torch.uint8).numpy().data)
        return {name: math.prod(size) * dtype.itemsize for name, (dtype, size) in tensors.items()}

    def _pieces(self, source: TorchDist, unit: Unit) -> Iterator[Piece]:
        """Yield the unit's Hugging Face tensors from the first row to the last, in the precision that they are stored in."""
        dtype, width = source.dtype(unit.megatron, unit.layer), source.shape(unit.megatron, unit.layer)[1:]
        for runs in hf_pieces(unit, self.architecture, dtype):

            def fill(target: torch.Tensor, runs: list[tuple[int, int]] = runs) -> None:
                place = 0
                for start, stop in runs:
                    source.read_into(target[place : place + stop - start], unit.megatron, unit.layer, start)
                    place += stop - start

            yield Piece((sum(stop - start for start, stop in runs), *width), dtype, fill)


def convert(job: Export, output: Path, inputs: InputHashes, workers: int = 1) -> None:
    """Write one iteration of a checkpoint, whose files are `inputs`, as the Hugging Face folder `output`.

    Raises:
        DataError: the checkpoint is incomplete or does not fit its configuration, or `output` holds something else.
    """
    folder = checkpoint_folder.find_iteration(job.megatron, job.iteration)
    companions = job.hf or job.megatron / checkpoint_folder.HF
    family, architecture, config = _target(job, folder, companions)
    if companions.is_dir():
        check_vocabulary(companions, architecture.vocab_size)
    options = {
        "family": family.name,
        "iteration": int(folder.name.removeprefix("iter_")),
        "dtype": job.dtype,
        "max_shard_bytes": job.shard_bytes,
    }
    if finished(output, output, STAGE, inputs.paths, options):
        return
    source = TorchDist(folder)
    check_tensors(source, family, architecture)
    steps = _shards(job, folder, source, family, architecture)
    temporary = output.with_name(f".{output.name}.partial")
    begin(temporary, inputs.paths, options)
    total = sum(unit.nbytes(architecture, step.dtype or source.dtype(unit.megatron, unit.layer)) for step in steps for unit in step.units)
    results, hashes = run_steps("export", temporary, steps, workers, inputs, total)
    written = copy_companions(companions, temporary) if companions.is_dir() else []
    dtype = DTYPES[job.dtype] if job.dtype else source.dtype(family.shared[0].megatron, None)
    written += _write_config(temporary, config, dtype)
    written += _write_index(temporary, steps, results)
    files = sorted({*written, *(temporary / step.file for step in steps)})
    record(temporary, STAGE, inputs.paths, hashes, options, files, architecture)
    temporary.replace(output)
    print(f"{output}: {family.name}, {architecture.parameters:,} parameters, from {folder}")


def _target(job: Export, folder: Path, companions: Path) -> tuple[Family, Architecture, dict[str, Any] | None]:
    """Return the family to write, the model's shape, and a new configuration where the one at hand is another family's."""
    architecture = architectures.read(folder)
    path = companions / "config.json"
    base: dict[str, Any] = {}
    if path.is_file():
        family, configured = families.find(path)
        if configured != architecture:
            raise DataError(
                f"{path} describes another model than {folder / architectures.NAME}: {differences(configured, architecture)}; "
                "give the folder of the right one with --hf"
            )
        base = families.read_config(path)
    name = job.as_family or architecture.family
    if name not in FAMILIES:
        raise DataError(f"family {name!r} is not known; known: {', '.join(sorted(FAMILIES))}")
    if base and name == architecture.family:
        return family, architecture, None
    kept: dict[str, Any] = {key: base[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range") if key in base}
    config: dict[str, Any] = {**FAMILIES[name].config(architecture), **kept}
    wanted = dataclasses.replace(architecture, family=name)
    written = families.architecture_of(FAMILIES[name], config, f"config.json of {name}")
    if written != wanted:
        raise DataError(f"a {architecture.family} model cannot be written as {name}: {differences(written, wanted)}")
    return FAMILIES[name], wanted, config


def differences(first: Architecture, second: Architecture) -> str:
    """Name the fields in which two architectures differ, with both values."""
    pairs = zip(dataclasses.asdict(first).items(), dataclasses.asdict(second).values(), strict=True)
    return "; ".join(f"{name} is {value!r} there and {other!r} here" for (name, value), other in pairs if value != other)


def check_tensors(source: TorchDist, family: Family, architecture: Architecture) -> None:
    """Check that the checkpoint has the tensors of the family, in their sizes.

    Raises:
        DataError: one is missing, is too many, or has another size; says which numbers differ and what to do.
    """
    wanted = [unit for part in units(family, architecture) for unit in part]
    if missing := sorted({unit.megatron for unit in wanted if not source.holds(unit.megatron, unit.layer)}):
        raise DataError(f"{source.folder} lacks {', '.join(missing)}: it is not a {family.name} model")
    known = {source.key(unit.megatron, unit.layer) for unit in wanted}
    model = {name for name in source.tensors if name.startswith(("decoder.", "embedding.", "output_layer."))}
    surplus = sorted(name for name in model - known if "_extra_state" not in name)
    if surplus:
        raise DataError(f"{source.folder} has tensors that a {family.name} model has no place for: {', '.join(surplus[:3])}")
    for unit in wanted:
        found, expected = source.shape(unit.megatron, unit.layer), padded_shape(unit, architecture, 1)
        if unit.megatron in VOCABULARY and found[1:] == expected[1:] and found[0] >= architecture.vocab_size:
            continue
        if found != expected:
            hint = ""
            if unit.megatron in VOCABULARY and found[0] < architecture.vocab_size:
                hint = (
                    f": the tokenizer and config.json have {architecture.vocab_size:,} ids, the checkpoint {found[0]:,} rows; "
                    "import the model again with hf_to_megatron.py --add-special-tokens, or export with the --hf folder it was trained with"
                )
            raise DataError(f"{source.folder}: {unit.megatron} has the size {list(found)}, the model asks for {list(expected)}{hint}")


def _shards(job: Export, folder: Path, source: TorchDist, family: Family, architecture: Architecture) -> list[WriteShard]:
    """Divide the tensors among files of at most `shard_bytes`, in the order of the layers."""
    dtype = DTYPES.get(job.dtype or "")
    shards: list[list[Unit]] = [[]]
    size = 0

    def place(unit: Unit) -> tuple[str, int]:
        return source.place(unit.megatron, unit.layer)

    for unit in (unit for part in units(family, architecture) for unit in sorted(part, key=place)):
        nbytes = unit.nbytes(architecture, dtype or source.dtype(unit.megatron, unit.layer))
        if size and size + nbytes > job.shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(unit)
        size += nbytes
    names = (
        ["model.safetensors"]
        if len(shards) == 1
        else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    )
    return [WriteShard(name, folder, tuple(shard), architecture, dtype) for name, shard in zip(names, shards, strict=True)]


def _write_config(folder: Path, config: dict[str, Any] | None, dtype: torch.dtype) -> list[Path]:
    """Write config.json where it is new; name the weights' precision in it, and leave an equal file untouched."""
    path = folder / "config.json"
    name = str(dtype).removeprefix("torch.")
    if config is None:
        config = families.read_config(path)
    elif path.is_file():
        path.unlink()
    field = "dtype" if "dtype" in config else "torch_dtype"
    if not path.is_file() or config.get(field) != name:
        write_text(path, json.dumps({**config, field: name}, indent=2, ensure_ascii=False) + "\n")
    return [path]


def _write_index(folder: Path, steps: list[WriteShard], sizes: list[dict[str, int]]) -> list[Path]:
    """Write the index, for more than one file."""
    if len(steps) == 1:
        return []
    places = {name: step.file for step, tensors in zip(steps, sizes, strict=True) for name in tensors}
    total = sum(size for tensors in sizes for size in tensors.values())
    write_text(folder / INDEX, json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=1) + "\n")
    return [folder / INDEX]
