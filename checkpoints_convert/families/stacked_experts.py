"""Hub tensors that hold all experts of a layer, as views of them expert by expert.

Families map the tensors of single experts. Where a folder has them stacked, [experts, rows,
columns], reading replaces the stacked tensor by views of it and copies no byte. gpt-oss's are
transposed, interleaved and perhaps MXFP4, which no view expresses: `hf/fused_experts.py`.
"""

from dataclasses import dataclass, replace

from megatron_ext.checkpoint.stored_tensor import StoredTensor, contiguous


@dataclass(frozen=True)
class StackedExperts:
    """A tensor of all experts of a layer."""

    hf: str
    """Its name, with `{layer}`."""
    parts: tuple[str, ...]
    """Names of an expert's tensors, whose rows follow each other in it, with `{expert}` too."""

    def name(self, layer: int) -> str:
        """Return its name in a layer."""
        return self.hf.format(layer=layer)

    def views(self, stored: StoredTensor, layer: int) -> dict[str, StoredTensor]:
        """Return the tensors of single experts by name.

        Raises:
            ValueError: `stored` has a size that cannot be divided among experts and parts.
        """
        count = len(self.parts)
        if len(stored.shape) != 3 or stored.shape[1] % count:
            raise ValueError(
                f"the size {list(stored.shape)} is not [experts, {count} x rows, columns]"
            )
        return {
            name.format(layer=layer, expert=expert): _part(stored.at((expert,)), number, count)
            for expert in range(stored.shape[0])
            for number, name in enumerate(self.parts)
        }


def _part(matrix: StoredTensor, number: int, count: int) -> StoredTensor:
    """Return a matrix's part `number` of `count` of the same number of rows."""
    rows = matrix.shape[0] // count
    stride = matrix.stride or contiguous(matrix.shape)
    return replace(
        matrix,
        offset=matrix.offset + number * rows * stride[0] * matrix.dtype.itemsize,
        shape=(rows, *matrix.shape[1:]),
    )
