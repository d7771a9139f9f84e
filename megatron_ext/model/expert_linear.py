"""The output projection of an expert with a bias, on PyTorch layers."""

from megatron.core.tensor_parallel import RowParallelLinear
from torch import Tensor


class ExpertRowParallelLinear(RowParallelLinear):
    """Megatron's linear layer with an output of its own.

    Megatron's expert adds the bias in place, which autograd forbids for the output of a function
    that returns its input, as the reduction over one process does.
    """

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the output without the bias, and the bias."""
        output, bias = super().forward(input_)
        return (output if bias is None else output.clone()), bias
