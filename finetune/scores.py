"""What evaluation/run.py wrote about a scored model."""

import json
from pathlib import Path
from typing import Any

from galen.errors import DataError


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results of a folder of scores.

    Raises:
        DataError: they are missing or damaged.
    """
    path = folder / "results.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); was the model scored to its end by evaluation/run.py?") from None
