"""The specification of tasks with generated answers, scored against a reference."""

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from evaluation import question_sets
from evaluation.prompts.reference_prompt import ReferencePrompt
from evaluation.question_sets import reference_reader, rows
from evaluation.question_sets.fields import ReferenceFields
from evaluation.question_sets.question import Question
from galen import recipe

GenerationMetric = Literal["exact_match", "numeric", "f1"]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError) as error:
        raise ValueError(f"not a valid regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(kw_only=True, config=recipe.STRICT)
class Tolerance:
    """How far a right number may be from the reference; the larger distance counts."""

    absolute: Distance = 0.0
    """In the reference's unit."""
    relative: Distance = 0.0
    """As a fraction of the reference: 0.05 is 5 %."""


@dataclass(kw_only=True, config=recipe.STRICT)
class GenerationTask:
    """Generated answers, scored against a reference."""

    kind: Literal["generation"]
    """What is measured."""
    file: str
    """Questions: a file or folder below --data, or `hub:OWNER/NAME[:CONFIGURATION]:SPLIT`."""
    fields: ReferenceFields
    """Which columns hold question and reference."""
    test_split: str | None = None
    """Score only records of this split (see `fields.split`); null: all."""
    subjects: list[str] | None = None
    """Score only questions with these subjects; null: all."""
    metric: GenerationMetric
    """How an answer is scored.

    exact_match: equal to a reference; numeric: the same value as a reference; f1: tokens in common
    with a reference, as SQuAD's script.
    """
    ignore_case: bool = False
    """With exact_match: as in lm-evaluation-harness."""
    ignore_punctuation: bool = False
    """With exact_match: as in lm-evaluation-harness."""
    ignore_numbers: bool = False
    """With exact_match: as in lm-evaluation-harness."""
    regexes_to_ignore: list[Pattern] = field(default_factory=list)
    """With exact_match: removed from answer and reference, as in lm-evaluation-harness."""
    tolerance: Tolerance | None = None
    """With numeric: null: the value of the reference, or the limits of `fields`."""
    regex_pattern: Pattern | None = None
    """Only what its last match (its first group, if it has one) holds is the answer; null: all."""
    prompt: ReferencePrompt = field(default_factory=ReferencePrompt)
    """Wording of the task."""
    fewshot_source: str | None = None
    """Where few-shot examples come from (the training set), as `file`."""
    fewshot_split: str | None = None
    """Take few-shot examples only from this split, of `fewshot_source` or else of `file`."""
    fewshot_sampler: Literal["first_n", "random"] = "random"
    """Which few-shot examples: the first ones, or those with the smallest hashes with the seed."""
    num_fewshot: Annotated[int, Field(ge=0)] = 0
    """Few-shot examples; --num-fewshot replaces it."""
    stop: list[str] | None = None
    """Stop strings; null: the delimiter of few-shot examples, under a chat template none."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """Maximum length of an answer under protocols that do not generate; others have their own."""

    def __post_init__(self) -> None:
        for key in ("test_split", "fewshot_split"):
            if getattr(self, key) is not None and self.fields.split is None:
                raise ValueError(f"key {key!r} needs the key 'fields.split'")
        if self.num_fewshot and self.fewshot_file is None:
            raise ValueError("key 'num_fewshot' needs the key 'fewshot_source' or 'fewshot_split'")
        if "" in (self.stop or ()):
            raise ValueError("key 'stop' must not hold an empty text")
        self._check_metric()

    def _check_metric(self) -> None:
        """Check that only keys of the metric are given."""
        is_numeric = self.metric == "numeric"
        if not is_numeric and (self.tolerance is not None or self.fields.lower is not None):
            raise ValueError(
                "keys 'tolerance', 'fields.lower' and 'fields.upper' need metric numeric"
            )
        if self.tolerance is not None and self.fields.lower is not None:
            raise ValueError("give one of the keys 'tolerance' and 'fields.lower'")
        keys = ("ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore")
        for key in keys:
            if getattr(self, key) and self.metric != "exact_match":
                raise ValueError(f"key {key!r} needs metric exact_match")

    @property
    def fewshot_file(self) -> str | None:
        """The file of few-shot examples; None where there is none."""
        if self.fewshot_source is None and self.fewshot_split is not None:
            return self.file
        return self.fewshot_source

    def source(self, data: Path, name: str) -> str | Path:
        """Return where `name`, one of the task's files, is."""
        return name if name.startswith(rows.HUB) else data / name

    def files(self, data: Path) -> list[Path]:
        """Return the files of questions and few-shot examples on this machine."""
        names = [self.file]
        if self.num_fewshot and self.fewshot_file is not None:
            names.append(self.fewshot_file)
        table = reference_reader.reader(self.fields).table
        paths = [path for name in names for path in rows.files(self.source(data, name), table)]
        return list(dict.fromkeys(paths))

    def questions(self, data: Path) -> list[Question]:
        """Read the questions to score.

        Raises:
            DataError: they are not there, or a record is wrong.
        """
        layout = reference_reader.reader(self.fields, self.test_split)
        questions = question_sets.read(layout, self.source(data, self.file))
        return question_sets.select(questions, None, self.subjects)

    def fewshot_candidates(self, data: Path) -> list[Question]:
        """Read the questions that few-shot examples are selected from."""
        layout = reference_reader.reader(self.fields, self.fewshot_split, unique_ids=False)
        return question_sets.read(layout, self.source(data, self.fewshot_file or ""))
