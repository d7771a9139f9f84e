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
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results["model"], dict) or not isinstance(results["protocol"], str):
            raise ValueError("no model or protocol")
        for name, task in results["tasks"].items():
            if not isinstance(task, dict) or not isinstance(task.get("metrics"), dict):
                raise ValueError(f"task {name} has no metrics")
        return results
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); was the model scored to its end by evaluation/run.py?") from None
