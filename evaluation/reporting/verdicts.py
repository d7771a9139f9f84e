"""Outcomes of comparisons in sentences, and the format of their numbers."""

from evaluation.reporting.comparison import ALPHA, Comparison, Row, is_fraction

METRIC_TITLES = {
    "perplexity": "Perplexity",
    "bits_per_byte": "Bits per byte",
    "accuracy": "Accuracy",
    "exact_match": "Exact match",
    "numeric": "Right values",
    "f1": "F1",
    "answered": "Answered",
    "accuracy_argmax": "Most likely option",
    "acc": "Not normalized",
    "acc_norm": "Per character",
    "acc_bytes": "Per byte",
    "accuracy_strict_match": "Strict match",
    "partial_credit": "Partial credit",
    "unparsed": "Unparsed",
    "reached_limit": "Reached the token limit",
    "truncated_thinking": "Thinking cut off",
    "forced": "Answers forced",
    "tokens_per_answer": "Tokens per answer",
    "thinking_tokens_per_answer": "Of these thinking",
    "macro_by_subject": "Mean of subjects",
    "macro_by_language": "Mean of languages",
}


def metric_title(compared: Comparison, metric: str) -> str:
    """Return a metric's title in the report; that of another library is its name."""
    if not compared.task_type.has_metric_titles:
        return metric
    return METRIC_TITLES.get(metric, metric)


def verdict(compared: Comparison) -> str:
    """Return a task's outcome: the first model against the second and the last.

    A second sentence is about the clean subset if some samples are contaminated.
    """
    metric = compared.metric
    subject = (
        f"{metric_title(compared, metric)} on {compared.samples:,} {compared.task_type.unit}"
        f" ({compared.title})"
    )
    sentence = f"{subject}{_outcome(compared)}."
    if not compared.subsets:
        return sentence
    contaminated = compared.samples - (compared.clean.samples if compared.clean else 0)
    if compared.clean is None:
        return f"{sentence} All of them are in the training corpus."
    return (
        f"{sentence} Without the {contaminated:,} that are in the training corpus"
        f"{_outcome(compared.clean)}."
    )


def _outcome(compared: Comparison) -> str:
    first, *others = compared.rows
    metric = compared.metric
    before = number(first.metrics[metric].value, metric)
    if not others:
        separator = ":" if compared.subset else " is"
        return f"{separator} {before} ({interval(first, metric)})"
    if len(others) > 2:
        others = [others[0], others[-1]]
    changes = [_change(row, metric) for row in others]
    return f": {before} for {first.model}; {'; '.join(changes)}"


def remarks(compared: Comparison) -> list[str]:
    """Return sentences about a task's metric and contamination."""
    sentences = []
    if compared.task_type.lower_is_better:
        sentences.append("Lower is better.")
    else:
        unit = "; differences in percentage points" if is_fraction(compared.metric) else ""
        sentences.append(f"Higher is better{unit}.")
    if compared.chance is not None:
        sentences.append(f"Guessing gives {number(compared.chance, 'accuracy')}.")
    if compared.subsets:
        sentences.append(
            "Contaminated: in the training corpus, by the check of at least one model."
        )
    elif not compared.unchecked:
        sentences.append("No sample is in the training corpus.")
    sentences += truncations(compared)
    sentences += [
        f"{model} was scored on other data files ({', '.join(files)}) with the same ids and"
        " answers: check that the questions are the same."
        for model, files in compared.other_data.items()
    ]
    if len(compared.unchecked) == len(compared.rows):
        sentences.append("Contamination not checked.")
    elif compared.unchecked:
        sentences.append(f"Contamination not checked for {', '.join(compared.unchecked)}.")
    return sentences


def truncations(compared: Comparison) -> list[str]:
    """Return a sentence for each model whose prompts did not fit its context."""
    return [
        f"{model}: {count:,} of {compared.samples:,} prompts were truncated on the left to the"
        " model's context."
        for model, count in compared.truncated.items()
    ]


def number(value: float, metric: str) -> str:
    """Return a formatted metric: accuracy in percent, perplexity below 100 with two decimals."""
    if is_fraction(metric):
        return f"{100 * value:.1f} %"
    if metric.startswith("bits_per_byte"):
        return f"{value:.3f}"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def signed(value: float, metric: str) -> str:
    """Return a difference with its sign: percentage points, or units of perplexity and the like."""
    return with_sign(100 * value, 1) if is_fraction(metric) else with_sign(value, 2)


def with_sign(value: float, digits: int = 2) -> str:
    """Return a number with its sign; one that rounds to zero is positive."""
    text = f"{round(value, digits) + 0.0:+.{digits}f}"  # adding zero turns -0.0 into 0.0
    return text.replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """Return a formatted p-value; a significant one is never rounded to the level."""
    if value < 0.001:
        return "< 0.001"
    text = f"{value:.3f}"
    return f"< {ALPHA}" if value < ALPHA <= float(text) else text


def interval(row: Row, metric: str) -> str:
    """Return a value's 95 % interval in words."""
    estimate = row.metrics[metric]
    return (
        f"95 % interval {number(estimate.low, metric).removesuffix(' %')} to"
        f" {number(estimate.high, metric)}"
    )


def _change(row: Row, metric: str) -> str:
    """Return how a model compares with the first one; "rose" and "fell" only if that is clear."""
    difference = row.difference
    assert difference is not None  # only the first row has none
    value = number(row.metrics[metric].value, metric)
    if row.judgement == "unclear":
        change = f"{value} for {row.model}, no clear change"
    else:
        verb = "fell" if difference.value < 0 else "rose"
        change = f"{verb} to {value} for {row.model}"
    unit = " points" if is_fraction(metric) else ""
    low = signed(difference.low, metric)
    high = signed(difference.high, metric)
    interval = f"difference {signed(difference.value, metric)}{unit}, 95 % interval {low} to {high}"
    return f"{change} ({interval}), corrected p{_relation(row.corrected_p)}"


def _relation(p: float | None) -> str:
    text = p_value(1.0 if p is None else p)
    return f" {text}" if text.startswith("<") else f" = {text}"
