"""What evaluation/run.py wrote about a scored model."""

from pathlib import Path
from typing import Any

from galen import json_file
from galen.errors import DataError, malformed


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results of a folder of scores.

    Raises:
        DataError: they are missing or damaged.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise DataError(
            f"{path} cannot be read: it is missing; was the model scored to its end by"
            " `galen evaluate`?"
        )
    results = json_file.read_object(path)
    with malformed(path):
        if not isinstance(results["model"], dict) or not isinstance(results["protocol"], str):
            raise ValueError("no model or protocol")
        for name, task in results["tasks"].items():
            if not isinstance(task, dict) or not isinstance(task.get("metrics"), dict):
                raise ValueError(f"task {name} has no metrics")
    return results
