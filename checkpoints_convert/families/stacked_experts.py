"""Hub tensors that hold all experts of a layer, as views of them expert by expert.

The first axis of such a tensor is the expert. Families map the tensors of single experts; where a
folder has stacked ones, reading replaces them by their views and copies no byte.
"""

from dataclasses import dataclass, replace

from megatron_ext.checkpoint.stored_tensor import StoredTensor, contiguous


@dataclass(frozen=True)
class StackedExperts:
    """A tensor of [experts, rows, columns], or of [experts, rows] for biases."""

    hf: str
    """Its name, with `{layer}`."""
    parts: tuple[str, ...]
    """Names of the tensors of one expert that its rows consist of, with `{layer}`, `{expert}`."""
    transposed: bool = False
    """Whether it is [experts, columns, rows]."""
    interleaved: bool = False
    """Whether the rows of the parts alternate; they follow each other otherwise."""

    def name(self, layer: int) -> str:
        """Return its name in a layer."""
        return self.hf.format(layer=layer)

    def part_names(self, layer: int, expert: int) -> list[str]:
        """Return the names of its parts in a layer and expert."""
        return [name.format(layer=layer, expert=expert) for name in self.parts]

    def views(self, stored: StoredTensor, layer: int) -> dict[str, StoredTensor]:
        """Return the tensors of single experts by name.

        Raises:
            ValueError: `stored` has a size that cannot be divided among the parts.
        """
        axes = len(stored.shape)
        rows_axis = 2 if self.transposed else 1
        if axes not in (2, 3) or axes <= rows_axis or stored.shape[rows_axis] % len(self.parts):
            raise ValueError(f"the size {list(stored.shape)} is not that of stacked experts")
        views = {}
        for expert in range(stored.shape[0]):
            matrix = stored.at((expert,))
            if self.transposed:
                matrix = _transposed(matrix)
            for number, name in enumerate(self.part_names(layer, expert)):
                views[name] = self._part(matrix, number)
        return views

    def _part(self, matrix: StoredTensor, number: int) -> StoredTensor:
        """Return the rows of a part."""
        count = len(self.parts)
        rows = matrix.shape[0] // count
        stride = matrix.stride or contiguous(matrix.shape)
        first = number if self.interleaved else number * rows
        step = count if self.interleaved else 1
        return replace(
            matrix,
            offset=matrix.offset + first * stride[0] * matrix.dtype.itemsize,
            shape=(rows, *matrix.shape[1:]),
            stride=(stride[0] * step, *stride[1:]),
        )


def _transposed(matrix: StoredTensor) -> StoredTensor:
    stride = matrix.stride or contiguous(matrix.shape)
    return replace(matrix, shape=matrix.shape[::-1], stride=stride[::-1])
