"""Scores of an answer against a reference: exact match and token F1."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


def exact_match(
    answer: str,
    reference: str,
    *,
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
    regexes_to_ignore: Sequence[str] = (),
) -> bool:
    """Return whether an answer is the reference; options as lm-evaluation-harness' exact_match."""

    def normalized(text: str) -> str:
        for pattern in regexes_to_ignore:
            text = re.sub(pattern, "", text)
        if ignore_case:
            text = text.lower()
        if ignore_punctuation:
            text = text.translate(_PUNCTUATION)
        return text.translate(_DIGITS) if ignore_numbers else text

    return normalized(answer) == normalized(reference)


def squad_normalized(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and extra white space.

    As SQuAD's script (Rajpurkar et al. 2016, arXiv:1606.05250).
    """
    without_punctuation = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split())


def token_f1(answer: str, reference: str) -> float:
    """Return the F1 of the tokens that answer and reference have in common, as SQuAD's script.

    Where one has no tokens, it is 1 if both have none (version 2.0).
    """
    answer_tokens = squad_normalized(answer).split()
    reference_tokens = squad_normalized(reference).split()
    if not answer_tokens or not reference_tokens:
        return float(answer_tokens == reference_tokens)
    common = (Counter(answer_tokens) & Counter(reference_tokens)).total()
    if not common:
        return 0.0
    precision = common / len(answer_tokens)
    recall = common / len(reference_tokens)
    return 2 * precision * recall / (precision + recall)
