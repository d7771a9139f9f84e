"""Activation functions that Megatron Core lacks.

Of one with learned parameters, each MLP has its own module.
"""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.jit import jit_fuser
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.distributed import ProcessGroup

_BETA = 0.5
_EPS = -1e-6


def gelu_tanh(inputs: Tensor) -> Tensor:
    """Return the tanh approximation of GELU, which keeps only its input for the backward pass."""
    return torch.nn.functional.gelu(inputs, approximate="tanh")


class Xielu(MegatronModule):
    """xIELU (Huang & Schlag 2024, arXiv 2411.13010), the activation of Apertus.

    Every tensor-parallel rank holds the two parameters, and applies them to its part of the hidden
    activations. As one-dimensional weights they have no weight decay in Megatron's optimizer, like
    in Apertus' own training. Hugging Face saves the constants with the weights; so do checkpoints
    here, as their bits depend on the precision.
    """

    beta: Tensor
    eps: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        dtype = config.params_dtype
        # before softplus: 0.8 for positive inputs; 0.8 - beta for negative ones
        positive = torch.tensor([0.8], dtype=dtype)
        negative = torch.tensor([0.8 - _BETA], dtype=dtype)
        self.alpha_p = torch.nn.Parameter(torch.log(torch.expm1(positive)))
        self.alpha_n = torch.nn.Parameter(torch.log(torch.expm1(negative)))
        self.register_buffer("beta", torch.tensor([_BETA], dtype=dtype))
        self.register_buffer("eps", torch.tensor([_EPS], dtype=dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activation of this rank's part of an MLP's hidden state."""
        alpha_p = torch.nn.functional.softplus(self.alpha_p)
        alpha_n = self.beta + torch.nn.functional.softplus(self.alpha_n)
        group = parallel_state.get_tensor_model_parallel_group()
        output: Tensor = _XieluFunction.apply(inputs, alpha_p, alpha_n, self.beta, self.eps, group)
        return output


class _XieluFunction(torch.autograd.Function):
    """xIELU that keeps only its input for the backward pass.

    On a CPU the forward pass computes what transformers' does, operation by operation. The backward
    pass computes in float32 and sums the gradients of the parameters over the tensor-parallel
    ranks, each of which has seen a part of the activations. On a GPU each pass is compiled to few
    kernels, which have float32 in between: its twenty-odd operations would take as long as the
    matrix products of an MLP.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        alpha_p: Tensor,
        alpha_n: Tensor,
        beta: Tensor,
        eps: Tensor,
        group: ProcessGroup,
    ) -> Tensor:
        """Return the activation.

        Args:
            ctx: passes tensors to the backward pass.
            inputs: any shape.
            alpha_p: [1], after softplus.
            alpha_n: [1], after softplus and the addition of `beta`.
            beta: [1], constant.
            eps: [1], constant.
            group: the tensor-parallel ranks.
        """
        ctx.save_for_backward(inputs, alpha_p, alpha_n, beta, eps)
        ctx.group = group
        function = _compiled_xielu if inputs.is_cuda else _xielu
        output: Tensor = function(inputs, alpha_p, alpha_n, beta, eps)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Return the gradients of the inputs and of both parameters."""
        (gradient,) = gradients
        function = _compiled_gradients if gradient.is_cuda else _xielu_gradients
        of_inputs, sums = function(gradient, *ctx.saved_tensors)
        if ctx.group.size() > 1:
            torch.distributed.all_reduce(sums, group=ctx.group)
        of_p, of_n = sums.to(gradient.dtype).split(1)
        return of_inputs, of_p, of_n, None, None, None


def _xielu(inputs: Tensor, alpha_p: Tensor, alpha_n: Tensor, beta: Tensor, eps: Tensor) -> Tensor:
    return torch.where(
        inputs > 0,
        alpha_p * inputs * inputs + beta * inputs,
        (torch.expm1(torch.min(inputs, eps)) - inputs) * alpha_n + beta * inputs,
    )


def _xielu_gradients(gradient: Tensor, *saved: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the inputs, and [2] in float32: those of `alpha_p` and `alpha_n`.

    Args:
        gradient: of the output.
        saved: the arguments of `_xielu`.
    """
    inputs, alpha_p, alpha_n, beta, eps = (tensor.float() for tensor in saved)
    wide_gradient = gradient.float()
    is_positive = inputs > 0
    exponential = torch.expm1(torch.min(inputs, eps))
    # the minimum passes inputs below eps on, and half of the gradient at eps
    passed = (torch.sign(eps - inputs) + 1) / 2
    negative_slope = alpha_n * (passed * (exponential + 1) - 1) + beta
    slope = torch.where(is_positive, 2 * alpha_p * inputs + beta, negative_slope)
    of_p = torch.where(is_positive, wide_gradient * inputs * inputs, 0)
    of_n = torch.where(is_positive, 0, wide_gradient * (exponential - inputs))
    sums = torch.stack([of_p.sum(), of_n.sum()])
    return (wide_gradient * slope).to(gradient.dtype), sums


_compiled_xielu = jit_fuser(_xielu)
_compiled_gradients = jit_fuser(_xielu_gradients)
