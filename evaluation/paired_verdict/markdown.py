"""A study as Markdown, for a model card."""

import re
from collections.abc import Sequence

from evaluation.paired_verdict import study as studies
from evaluation.paired_verdict.study import Study
from evaluation.paired_verdict.task_verdict import TaskVerdict
from evaluation.reporting.verdicts import number, p_value, signed

_HEADER = "| task | samples | base | model | difference | corrected p | outcome | detectable |"


def text(study: Study) -> str:
    """Return sentences and tables."""
    lines = [f"## {_escaped(study.model)} against {_escaped(study.base)}", ""]
    lines += [f"- {_escaped(sentence)}" for sentence in studies.sentences(study)]
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
    cells = [
        _escaped(item.task),
        f"{item.samples:,}",
        number(item.tuned.base.value, item.metric),
        number(item.tuned.model.value, item.metric),
        f"{values[0]} ({values[1]} to {values[2]})",
        p_value(item.corrected_p),
        item.outcome,
        item.reach,
    ]
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return text of names and settings that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", " ".join(text.split()))


def _prompts(tasks: Sequence[TaskVerdict]) -> list[str]:
    lines = [
        "Differences with 95 % intervals, paired over samples; p-values with Holm's correction over"
        " all tasks; *detectable*: the smallest true difference that the task detects with 80 %"
        " probability."
    ]
    tuned = [item for item in tasks if item.num_prompts > 1]
    if tuned:
        lines += [
            "",
            "Each model with its own best prompt, chosen on samples that are not scored:",
            "",
        ]
        lines += [
            f"- {_escaped(item.task)}, {item.num_prompts} prompts on {item.validation_samples:,}"
            f" samples: {_escaped(item.base_prompt)} for the base, {_escaped(item.model_prompt)}"
            " for the model"
            for item in tuned
        ]
    return lines
