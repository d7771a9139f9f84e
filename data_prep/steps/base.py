"""Bases of the steps of a recipe: their settings and the filters made from them.

A step is a class in a file of its own, beside the dataclass of its settings, and one line in
data_prep/curation/registry.py.
"""

from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, ClassVar, Generic, Protocol, Self, TypeVar

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.recipe import STRICT

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(kw_only=True, config=STRICT)
class StepSettings:
    """Settings of a step; a subclass has the step's name as `step: Literal["name"] = "name"`."""

    required_before: ClassVar[tuple[str, ...]] = ()
    """Names of the steps that must come before this one."""

    step: str

    def source_names(self) -> set[str]:
        """Return the names of the sources that these settings refer to."""
        return set()

    def input_files(self) -> list[Path]:
        """Return the user's files that the step reads besides the sources."""
        return []


@dataclass(kw_only=True, config=STRICT)
class PerSourceSettings(StepSettings):
    """Settings of a step that can be limited to some sources."""

    sources: list[str] | None = Field(  # the docstring of a field is not inherited
        default=None,
        description=(
            "Names of the sources whose documents go through this step, the others bypass it;"
            " null: all."
        ),
    )

    def source_names(self) -> set[str]:
        """Return the sources that the step is limited to."""
        return set(self.sources or ())


S = TypeVar("S", bound=StepSettings)


class DocumentWriter(Protocol):
    """Writer of the documents that a filter drops (datatrove's `exclusion_writer`)."""

    def __enter__(self) -> Self:
        """Open the output."""

    def write(self, document: Document, rank: int = 0) -> None:
        """Write one document."""

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the output."""


class DocumentFilter(BaseFilter, Generic[S]):
    """A filter that decides on, or changes, one document at a time.

    `filter` returns True, or False with the reason, which is counted.

    Args:
        settings: of the recipe; an instance of `Settings`.
        exclusion_writer: writer of the dropped documents.
    """

    Settings: ClassVar[type[StepSettings]]

    def __init__(self, settings: S, exclusion_writer: DocumentWriter | None = None) -> None:
        super().__init__(exclusion_writer)
        self.settings = settings


class PreparedFilter(DocumentFilter[S]):
    """A filter that is prepared once before its tasks and publishes files after them."""

    def check(self) -> None:
        """Check the step's files before any work.

        Raises:
            DataError: a file is missing or damaged.
        """

    def prepare(self, folder: Path) -> None:
        """Make the step's data in its folder; called again after a kill, it resumes."""

    def finish(self, folder: Path, tasks: int) -> dict[str, Any]:
        """Put files for the corpus into `folder/publish` and return the step's report."""
        return {}
