"""A step for the documents of some sources."""

from collections.abc import Iterator, Sequence

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep


class PerSourceStep(PipelineStep):
    """Bypasses the inner step in tasks whose source is not named.

    A task has documents of one source.

    Args:
        step: the inner step, whose name and statistics this one has.
        sources: names of the sources whose documents go through the step.
        task_sources: for each task, the name of its source.
    """

    type = "FILTER"

    def __init__(
        self, step: PipelineStep, sources: Sequence[str], task_sources: Sequence[str]
    ) -> None:
        self.name = step.name
        super().__init__()
        self.step = step
        self.stats = step.stats
        self.sources = frozenset(sources)
        self.task_sources = list(task_sources)

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of this task that stay."""
        if self.task_sources[rank] in self.sources:
            yield from self.step.run(data, rank, world_size)
        else:
            yield from data
