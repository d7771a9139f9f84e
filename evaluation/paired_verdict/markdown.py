"""A study as Markdown, for a model card."""

from collections.abc import Sequence

from evaluation.paired_verdict import study as studies
from evaluation.paired_verdict.study import Study
from evaluation.paired_verdict.task_verdict import TaskVerdict
from evaluation.reporting.verdicts import number, p_value, signed

_HEADER = "| task | samples | base | model | difference | corrected p | outcome | shows |"


def text(study: Study) -> str:
    """Return sentences and tables."""
    lines = [f"## {study.model} against {study.base}", ""]
    lines += [f"- {sentence}" for sentence in studies.sentences(study)]
    for title, is_general in (("Medical tasks", False), ("General tasks: forgetting", True)):
        tasks = study.of(is_general)
        if tasks:
            lines += ["", f"### {title}", "", _HEADER, "|---|---|---|---|---|---|---|---|"]
            lines += [_row(item) for item in tasks]
    lines += ["", *_prompts(study.tasks)]
    return "\n".join(lines) + "\n"


def _row(item: TaskVerdict) -> str:
    difference = item.tuned.difference
    estimates = (difference.value, difference.low, difference.high)
    values = [signed(value, item.metric) for value in estimates]
    reach = "–"
    if item.minimum_difference is not None:
        reach = f"{100 * item.minimum_difference:.1f} points"
    cells = [
        item.task,
        f"{item.samples:,}",
        number(item.tuned.base.value, item.metric),
        number(item.tuned.model.value, item.metric),
        f"{values[0]} ({values[1]} to {values[2]})",
        p_value(item.corrected_p),
        item.outcome,
        reach,
    ]
    return f"| {' | '.join(cells)} |"


def _prompts(tasks: Sequence[TaskVerdict]) -> list[str]:
    lines = [
        "Differences with 95 % intervals, paired over samples; p-values with Holm's correction over"
        " all tasks; *shows*: the smallest true difference found with 80 % probability."
    ]
    tuned = [item for item in tasks if item.num_prompts > 1]
    if tuned:
        lines += [
            "",
            "Each model with its own best prompt, chosen on samples that are not scored:",
            "",
        ]
        lines += [
            f"- {item.task}, {item.num_prompts} prompts on {item.validation_samples:,} samples:"
            f" {item.base_prompt} for the base, {item.model_prompt} for the model"
            for item in tuned
        ]
    return lines
