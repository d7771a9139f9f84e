"""Requests of documents as token ids, and the responses as they arrive."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.backends.encoding import GenerationRequest, Request

Responses = list[list[Any]]
"""Of each instance of a document, a response per repetition."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a response belongs."""

    document: int
    instance: int
    repeats: int
    is_rolling: bool = False
    """Whether the response is a log-likelihood alone, summed over windows."""


@dataclass(slots=True)
class Work:
    """The requests of documents as token ids, and the responses."""

    scored: list[Request] = field(default_factory=list)
    cells: list[list[Cell]] = field(default_factory=list)
    """Of each scored request, the cell of each continuation."""
    generated: list[GenerationRequest] = field(default_factory=list)
    generation_cells: list[Cell] = field(default_factory=list)
    done_scored: set[int] = field(default_factory=set)
    done_generated: set[int] = field(default_factory=set)
    pending: Counter[int] = field(default_factory=Counter)
    """Requests of each document that are not answered."""
    responses: dict[int, dict[int, list[Any]]] = field(default_factory=dict)
    """By document and instance."""
    sums: dict[Cell, float] = field(default_factory=dict)
    """Log-likelihoods of texts, so far."""

    def add_scored(self, request: Request, cells: list[Cell], is_done: bool) -> None:
        """Add a request for log-likelihoods."""
        if is_done:
            self.done_scored.add(len(self.scored))
        self.scored.append(request)
        self.cells.append(cells)
        self.pending[cells[0].document] += 1

    def add_generated(self, request: GenerationRequest, cell: Cell, is_done: bool) -> None:
        """Add a request for text."""
        if is_done:
            self.done_generated.add(len(self.generated))
        self.generated.append(request)
        self.generation_cells.append(cell)
        self.pending[cell.document] += 1

    def store_score(self, cell: Cell, value: float, is_greedy: bool) -> None:
        """Store a log-likelihood."""
        if cell.is_rolling:
            value += self.sums.get(cell, 0.0)
            self.sums[cell] = value
            self.store(cell, [value] * cell.repeats)
        else:
            self.store(cell, [(value, is_greedy)] * cell.repeats)

    def store(self, cell: Cell, of_instance: list[Any]) -> None:
        """Store the responses to an instance."""
        self.responses.setdefault(cell.document, {})[cell.instance] = of_instance

    def finish(self, documents: Sequence[int]) -> list[tuple[int, Responses]]:
        """Count an answered request of each document; return the documents that are complete."""
        finished = []
        for document in documents:
            self.pending[document] -= 1
            if self.pending[document] == 0:
                by_instance = self.responses.pop(document)
                finished.append((document, [by_instance[key] for key in sorted(by_instance)]))
        return finished
