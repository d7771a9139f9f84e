"""Training records that are test questions too: found by 13 words in a row, or the whole text where it is shorter.

Thirteen words as in GPT-3's analysis (Brown et al., arXiv 2005.14165, appendix C): shorter runs are mostly phrases that all exams use.
"""

import re
from collections.abc import Iterable, Iterator

from finetune.record import Record, text_of

WORDS = 13
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")  # a Chinese or Japanese character is a word


class Overlap:
    """The texts of test sets, to ask whether a training record shares one.

    Args:
        tests: test records.
    """

    def __init__(self, tests: Iterable[Record]) -> None:
        self._runs = {run for record in tests for run in _runs(text_of(record))}

    def __contains__(self, record: Record) -> bool:
        """Say whether a record holds a run of words of a test record."""
        return any(run in self._runs for run in _runs(text_of(record)))


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    """Yield all runs of `WORDS` words, case and punctuation left away; a shorter text is one run."""
    words = _WORD.findall(text.casefold())
    for start in range(max(len(words) - WORDS, 0) + 1):
        yield tuple(words[start : start + WORDS])
