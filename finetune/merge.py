"""Merge models by SLERP, TIES, DARE-TIES, linear or another method of mergekit; or ensemble them.

    galen merge examples/merge/biomistral_slerp.yaml output=MERGED
    galen merge examples/merge/ensemble.yaml \\
        ensemble.scores='[scores/a, scores/b]' output=scores/ensemble

The first kind of recipe holds mergekit's own configuration and writes a model folder. The second
adds the letters' probabilities of models that `galen evaluate` has scored on the same questions,
and writes scores for evaluation/report.py.
"""

import logging
from pathlib import Path
from typing import Any

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from finetune.merging import ensemble, merge_models
from galen import cli, recipe
from galen.run_folder import RunFolder
from galen.run_identity import Identity

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, config=recipe.STRICT)
class Ensemble:
    """Models whose answers are added up."""

    scores: list[str]
    """Results folders of `galen evaluate`, one a model, two or more."""


@dataclass(kw_only=True, config=recipe.STRICT)
class Recipe:
    """A merge of weights, or an ensemble of answers."""

    output: str
    """Folder of the result."""
    mergekit: dict[str, Any] | None = None
    """mergekit's configuration (merge_method, models or slices, base_model, parameters, dtype).

    Models are local folders.
    """
    ensemble: Ensemble | None = None
    """Instead: models whose answers are added up."""
    seed: int = 1234
    """Seed of DARE's random masks."""
    verify_checksums: bool = True
    """Compare the models with the SHA-256 in their manifest.json, where they have one."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Recipe":
        if (self.mergekit is None) == (self.ensemble is None):
            raise ValueError("give either mergekit or ensemble")
        return self


def main(argv: list[str] | None = None) -> int | None:
    """Merge as the recipe says."""
    parsed = cli.recipe_parser(__doc__ or "", Recipe).parse_args(argv)
    options = recipe.load(Recipe, parsed.recipe, parsed.overrides)
    output = Path(options.output)
    config = {
        key: value
        for key, value in recipe.to_dict(options).items()
        if key not in ("output", "verify_checksums")
    }
    stage = "merge" if options.ensemble is None else "ensemble"
    if RunFolder(output, stage).finished(Identity(config)) is not None:
        logger.info(f"{output} is already complete")
    elif options.ensemble is not None:
        print(ensemble.write([Path(folder) for folder in options.ensemble.scores], config, output))
    else:
        assert options.mergekit is not None  # the recipe has one of the two
        merge_models.merge(
            merge_models.check(options.mergekit),
            options.seed,
            config,
            output,
            options.verify_checksums,
        )
        print(f"done: {output}")
    return 0


if __name__ == "__main__":
    cli.run(main)
