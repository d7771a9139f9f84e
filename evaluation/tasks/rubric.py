"""The specification of tasks whose answers a judge scores against a rubric."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from evaluation.question_sets import rows, rubric_reader
from evaluation.question_sets.rubric_reader import RubricConversation
from galen import recipe


@dataclass(kw_only=True, config=recipe.STRICT)
class LengthAdjustment:
    """Correction of a score for the length of the answer, as in HealthBench Professional."""

    center: Annotated[int, Field(ge=0)]
    """Characters of an answer that is not corrected."""
    per_500_characters: Annotated[float, Field(ge=0, le=1)]
    """Subtracted from the score for 500 characters above the center, added below it."""


@dataclass(kw_only=True, config=recipe.STRICT)
class RubricTask:
    """Answers to conversations, which `galen judge` scores against a rubric."""

    kind: Literal["rubric"]
    """What is measured."""
    file: str
    """Conversations: a file below --data, or `hub:OWNER/NAME[:CONFIGURATION]:SPLIT`."""
    layout: Literal["healthbench", "healthbench_professional", "conversations"] = "healthbench"
    """Columns of the file, as they are published; conversations: `id` and `messages`."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 2048
    """Maximum length of an answer, unless the protocol's is larger."""
    length_adjustment: LengthAdjustment | None = None
    """Correct the scores for the length of the answers; null: do not."""

    def source(self, data: Path) -> str | Path:
        """Return where the conversations are."""
        return self.file if self.file.startswith(rows.HUB) else data / self.file

    def files(self, data: Path) -> list[Path]:
        """Return the files of conversations on this machine."""
        return rows.files(self.source(data))

    def conversations(self, data: Path) -> list[RubricConversation]:
        """Read the conversations.

        Raises:
            DataError: they are not there, or a record is wrong.
        """
        return rubric_reader.read(self.source(data), self.layout)
