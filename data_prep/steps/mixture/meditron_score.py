"""MEDITRON's score of an article, by which it was up-sampled in an ablation.

See arXiv 2311.16079 and gap-replay of epfLLM/meditron.

Scores by publication type, added up; for articles with one also by age and by citations a year.
Its list of approved journals and its exclusion of animal studies, retractions and preprints are not
part of the score here: steps of the recipe exclude.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

TYPE_SCORES = {
    "Guideline": 1.0,
    "Practice Guideline": 1.0,
    "Patient Education Handout": 1.0,
    "Meta-Analysis": 1.0,
    "Systematic Review": 0.8,
    "Clinical Trial, Phase IV": 0.8,
    "Clinical Trial, Phase III": 0.6,
    "Clinical Trial, Phase II": 0.4,
    "Clinical Trial, Phase I": 0.2,
    "Randomized Controlled Trial": 0.5,
    "Review": 0.5,
    "Observational Study": 0.5,
    "Comparative Study": 0.5,
    "Clinical Study": 0.4,
    "Editorial": 0.1,
    "Letter": 0.1,
    "Comment": 0.1,
}
_NEW = 5.5 * 365  # days
_MIDDLE = 10 * 365


def type_and_age_score(metadata: Mapping[str, Any], reference_date: date) -> float:
    """Return the score for publication types and, where there are any, age.

    +1 under 5.5 years, +0.2 under 10.
    """
    score = sum(TYPE_SCORES.get(name, 0.0) for name in metadata.get("publication_types") or ())
    published = _date(metadata.get("date"))
    if score > 0 and published is not None:
        age = (reference_date - published).days
        if age <= _NEW:
            score += 1.0
        elif age <= _MIDDLE:
            score += 0.2
    return score


def citations_per_year(metadata: Mapping[str, Any], reference_date: date) -> float:
    """Return citations a year since publication (`citation_count`).

    NaN where citations or date are not known.
    """
    count = metadata.get("citation_count")
    published = _date(metadata.get("date"))
    if count is None or published is None:
        return float("nan")
    return float(count / max((reference_date - published).days // 365 + 1, 1))


def _date(text: Any) -> date | None:
    """Return a date of which year, or year and month, may be all that is known."""
    if not text:
        return None
    numbers = [int(number) for number in str(text)[:10].split("-") if number.isdecimal()]
    year, month, day = [*numbers, 1, 1][:3] if numbers else (0, 1, 1)
    try:
        return date(year, month, day)
    except (ValueError, OverflowError):
        return None
