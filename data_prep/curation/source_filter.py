"""A step through which only the documents of some sources go."""

from collections.abc import Iterator, Sequence

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep


class SomeSources(PipelineStep):
    """Bypasses the inner step in tasks whose source is not named.

    A task has documents of one source.
    """

    type = "FILTER"

    def __init__(self, step: PipelineStep, sources: Sequence[str]) -> None:
        self.name = step.name
        super().__init__()
        self.step, self.named, self.stats = step, frozenset(sources), step.stats
        self.of_task: Sequence[str] = ()
        """For each task, the name of its source; set before the tasks run."""

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of this task that stay."""
        yield from (
            self.step.run(data, rank, world_size) if self.of_task[rank] in self.named else data
        )
