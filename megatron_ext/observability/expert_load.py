"""The load of the experts in a run folder: written by the run, read by the monitor."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from galen import json_file
from galen.atomic import write_text
from galen.errors import DataError, one_line

FILE = "expert_load.json"


@dataclass(frozen=True)
class ExpertLoad:
    """The load over the steps of the newest log line."""

    step: int
    load: list[list[float]]
    """Tokens of each expert of each layer, as multiples of the mean over the layer's experts."""


def write(folder: Path, step: int, load: Sequence[Sequence[float]]) -> None:
    """Write the load of the experts at a step into a run folder."""
    rounded = [[round(value, 4) for value in layer] for layer in load]
    write_text(folder / FILE, json.dumps({"step": step, "load": rounded}) + "\n")


def read(folder: Path) -> ExpertLoad | None:
    """Return the load in a run folder, None if there is none, as of a dense model.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        load = TypeAdapter(ExpertLoad).validate_python(json_file.read_object(path))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {one_line(error)}; remove it") from None
    widths = {len(layer) for layer in load.load}
    values = itertools.chain.from_iterable(load.load)
    if len(widths) != 1 or 0 in widths or not all(0 <= value < float("inf") for value in values):
        raise DataError(f"{path} is damaged: it is no table of layers and experts; remove it")
    return load
