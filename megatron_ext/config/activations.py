"""Activation functions of the MLP, by the names that Hugging Face's `hidden_act` has for them."""

from typing import Literal, NamedTuple

ActivationName = Literal["silu", "relu2", "gelu_pytorch_tanh", "quick_gelu", "xielu"]


class Activation(NamedTuple):
    """An activation function of the MLP."""

    function: str
    """Dotted name of it in PyTorch, Megatron Core or Galen: a function, or a module's class."""
    fused_function: str | None
    """Name of the function for which Megatron Core fuses it with the gate, None if it does not."""
    kernel: str | None = None
    """Name of an equal function in a single kernel, which runs unless fused; None if there is none.
    """
    parameters: int = 0
    """Learned parameters of each MLP's own module, which every tensor-parallel rank holds."""


ACTIVATIONS: dict[ActivationName, Activation] = {
    "silu": Activation("torch.nn.functional.silu", "torch.nn.functional.silu"),
    "relu2": Activation("megatron.core.activations.squared_relu", None),
    # the core's fused GeGLU is this approximation, unlike its unfused one (0.16.1 and 0.19.2)
    "gelu_pytorch_tanh": Activation(
        "megatron.core.activations.fast_gelu",
        "torch.nn.functional.gelu",
        "megatron_ext.model.activations.gelu_tanh",
    ),
    "quick_gelu": Activation(
        "megatron.core.activations.quick_gelu",
        "megatron.core.fusions.fused_bias_geglu.quick_gelu",
    ),
    "xielu": Activation("megatron_ext.model.activations.Xielu", None, parameters=2),
}
"""By the name that Hugging Face's `hidden_act` has for it."""
