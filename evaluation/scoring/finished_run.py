"""The results of a finished run, and renaming of its model."""

import json
from pathlib import Path
from typing import Any

import yaml

from evaluation.question_sets import jsonl
from evaluation.scoring.results_schema import Results, check
from galen import manifest, yaml_text
from galen.atomic import write_text

RESULTS = "results.json"
RECIPE = "recipe.yaml"
"""The recipe that reproduces the results."""


def read(output: Path, name: str, recipe: str) -> dict[str, Any]:
    """Return the results of a finished run.

    If this call has another name for the model, results, manifest and recipe are given it.

    Args:
        output: the run's folder.
        name: the model's name.
        recipe: this call's recipe as YAML.
    """
    path = output / RESULTS
    results = jsonl.tree(path)
    check(
        Results,
        results,
        path,
        " is not a results file of `galen evaluate`; remove it, and the samples are not scored"
        " again",
    )
    if results["model"]["name"] == name:
        return results
    _rename_recipe(output, recipe)
    record = manifest.read(output)
    results["model"]["name"] = record["config"]["model"]["name"] = name
    write_text(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    hashed = {**manifest.describe_file(path), "path": RESULTS}
    record["outputs"] = [
        hashed if output["path"] == RESULTS else output for output in record["outputs"]
    ]
    write_text(output / manifest.NAME, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return results


def _rename_recipe(output: Path, recipe: str) -> None:
    """Give the recipe beside finished results the name and output folder of this call.

    Its other keys stay: the results were made with them.
    """
    path = output / RECIPE
    if not path.is_file():
        write_text(path, recipe)
        return
    existing, _ = yaml_text.read(path)
    present = yaml_text.value(recipe, RECIPE)
    renamed = existing | {key: present[key] for key in ("name", "output")}
    write_text(path, yaml.safe_dump(renamed, sort_keys=False, allow_unicode=True))
