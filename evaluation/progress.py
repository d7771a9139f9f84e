"""Did it help, and what did it forget? A model against the one it was made from.

    galen progress scores/base scores/tuned --output progress
    galen progress scores/*/base scores/*/tuned --base base --model tuned \\
        --general lm_eval:ifeval lm_eval:arc_challenge --corpus corpus --output progress
    galen progress STUDY.yaml [key=value …]

RUN is an output folder of `galen evaluate`. Runs with the same model name are that model under
several prompts (protocols and settings): each model gets its own best one, chosen on a part of the
samples that is then not scored, and every model must have the same candidates. The first run's
prompt is the fixed one that is reported beside. STUDY.yaml evaluates the models first: all models,
tasks and prompts, resumable.

OUTPUT has the page of each model (MODEL.html), the same as Markdown for its model card (MODEL.md),
and all figures (MODEL.json): win, tie or loss of each task by a paired test with Holm's correction,
the mean over medical and over general tasks with intervals, the difference that the test sets could
show, and what the scores rest on. Several models have an overview.html, too: iterations of a run in
their order show when it forgets more than it learns.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from evaluation.paired_verdict import markdown, prompt_choice, study, study_recipe
from evaluation.paired_verdict.study import Study
from evaluation.paired_verdict.study_recipe import StudyRecipe
from evaluation.reporting import report_inputs, verdicts
from evaluation.reporting.report_inputs import ModelScores
from evaluation.scoring import model_names
from galen import cli, corpus_sources, lock, page, recipe, recipe_help
from galen.atomic import write_text
from galen.corpus_sources import CorpusSource
from galen.errors import UsageError

logger = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).parent / "paired_verdict" / "progress.html.j2"
_OVERVIEW_TEMPLATE = _TEMPLATE.with_name("overview.html.j2")
OVERVIEW = f"{study_recipe.OVERVIEW}.html"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    has_recipe = any(Path(word).suffix in (".yaml", ".yml") for word in words)
    if has_recipe and not any(word.startswith("--o") for word in words):
        named = cli.recipe_parser(__doc__ or "", StudyRecipe).parse_args(words)
        options = recipe.load(StudyRecipe, named.recipe, named.overrides)
        with lock.hold(options.output):
            folders = study_recipe.evaluate(options)
            write(
                folders,
                options.output,
                base=options.models[0].name,
                models=[model.name for model in study_recipe.models(options)[1:]],
                general=study_recipe.general_tasks(options),
                validation_fraction=options.validation_fraction,
                corpora=[] if options.corpus is None else [options.corpus],
                judges=options.judges,
            )
        return
    parsed = _parser().parse_args(words)
    if not 0 < parsed.validation_fraction < 1:
        raise UsageError("--validation-fraction must be between 0 and 1")
    with lock.hold(parsed.output):
        write(
            parsed.run,
            parsed.output,
            base=parsed.base,
            models=parsed.model,
            general=parsed.general,
            validation_fraction=parsed.validation_fraction,
            corpora=parsed.corpus,
            judges=parsed.judges,
        )


def write(
    folders: Sequence[Path],
    output: Path,
    *,
    base: str | None = None,
    models: Sequence[str] = (),
    general: Sequence[str] | None = None,
    validation_fraction: float = prompt_choice.VALIDATION_FRACTION,
    corpora: Sequence[Path] = (),
    judges: Sequence[Path] = (),
) -> list[Study]:
    """Write the pages of models against their base; return the studies.

    Args:
        folders: output folders of `galen evaluate`.
        output: folder of the pages.
        base: the base's name; None for the first run's model.
        models: names of the others; empty for all.
        general: tasks that are not medical; None for those known to be.
        validation_fraction: of each task's samples, to choose prompts on.
        corpora: folders of curated corpora, for sources and licenses.
        judges: folders of judges, for scores of answers.

    Raises:
        UsageError, DataError: a run is missing or damaged, or the runs do not compare.
    """
    runs = [report_inputs.read_scores(folder) for folder in folders]
    base = base or runs[0].model
    names = _compared_models(runs, base, models)
    studies = [
        study.judge(runs, base, name, general, validation_fraction, judges) for name in names
    ]
    sources = [source for folder in corpora for source in corpus_sources.read(folder)]
    for item in studies:
        page_path = _write_study(output, item, render(item, runs, sources))
        for sentence in study.sentences(item):
            print(sentence)
        logger.info(f"page: {page_path}")
    if len(studies) > 1:
        write_text(output / OVERVIEW, render_overview(studies))
        logger.info(f"overview: {output / OVERVIEW}")
    return studies


def _compared_models(runs: Sequence[ModelScores], base: str, models: Sequence[str]) -> list[str]:
    """Return the names of the models to compare with the base: those given, or all others."""
    available = dict.fromkeys(run.model for run in runs)
    names = list(dict.fromkeys(models)) or [name for name in available if name != base]
    if not names:
        raise UsageError(f"all runs are of {base}: give those of the model made from it, too")
    if base in names:
        raise UsageError(f"{base} is the base; a model is not compared with itself")
    model_names.check_files(names, reserved=[study_recipe.OVERVIEW])
    return names


def _write_study(output: Path, item: Study, html: str) -> Path:
    """Write a study as Markdown, JSON and HTML; return the page."""
    stem = model_names.file_stem(item.model)
    record = json.dumps(study.as_dict(item), indent=1, ensure_ascii=False)
    page_path = output / f"{stem}.html"
    write_text(output / f"{stem}.md", markdown.text(item))
    write_text(output / f"{stem}.json", record + "\n")
    write_text(page_path, html)
    return page_path


def render(item: Study, runs: Sequence[ModelScores], sources: Sequence[CorpusSource]) -> str:
    """Return the page of a model as HTML."""
    # matplotlib takes a second to import
    from evaluation.paired_verdict import forest_figure

    own = [run for run in runs if run.model in (item.base, item.model)]
    return page.render(
        _TEMPLATE,
        filters={
            "number": verdicts.number,
            "signed": verdicts.signed,
            "p_value": verdicts.p_value,
        },
        title=f"{item.model} against {item.base}",
        study=item,
        sentences=study.sentences(item),
        figure=forest_figure.differences,
        runs=own,
        sources=sources,
        documents=sum(source.documents for source in sources) or 1,
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def render_overview(studies: Sequence[Study]) -> str:
    """Return the page of all models, in their order: what each learned and forgot."""
    # matplotlib takes a second to import
    from evaluation.paired_verdict import forest_figure

    return page.render(
        _OVERVIEW_TEMPLATE,
        filters={"signed": verdicts.signed, "file_stem": model_names.file_stem},
        title=f"{len(studies)} models against {studies[0].base}",
        studies=studies,
        figure=forest_figure.trajectory(studies) if studies[0].tasks else "",
        outcomes=("win", "tie", "loss"),
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def _parser() -> cli.ArgumentParser:
    keys = f"keys of STUDY.yaml:\n{recipe_help.describe(StudyRecipe)}"
    parser = cli.ArgumentParser(__doc__, epilog=keys)
    parser.add_argument(
        "run", type=Path, nargs="+", metavar="RUN", help="output folders of `galen evaluate`"
    )
    parser.add_argument("--base", metavar="NAME", help="the base (default: the first run's model)")
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="NAME",
        help="models to compare with the base (default: all others)",
    )
    parser.add_argument(
        "--general",
        nargs="+",
        metavar="TASK",
        help="tasks that are not medical (default: MMLU's, TruthfulQA and known harness tasks)",
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=prompt_choice.VALIDATION_FRACTION,
        metavar="X",
        help="of each task's samples, to choose the prompts on (default: 0.2)",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="curated corpora of the training, for sources and licenses",
    )
    parser.add_argument(
        "--judges",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of judges that have scored answers, see `galen judge`",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the pages"
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
