"""Linear layers with weights packed by oneDNN, for float32 on a CPU.

PyTorch multiplies float32 matrices with MKL, which does not use the AVX-512 instructions of AMD
processors. oneDNN does; with packed weights it is also faster for the few rows of a decoding step.
"""

from typing import Any

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """The same function as an `nn.Linear`, for inference only.

    Args:
        linear: a layer with float32 weights on the CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.register_buffer("weight", packed, persistent=False)
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs, (…, outputs), for inputs of shape (…, inputs)."""
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self.weight, self.bias, "none", [], ""
        )
        return outputs


def pack(model: Any) -> None:
    """Replace the float32 linear layers of a model on the CPU; others remain as they are.

    Packed weights replace the original ones, so that memory grows only by an output layer that
    shares its weights with the embedding. Recurrent layers, as Mamba's, read the weights of their
    linear layers; a model with them remains as it is. So do the layers below an adapter, whose
    weights DoRA and trained tokens read, and adapters of parameters (stacked experts, routers),
    whose weights are multiplied with each other.
    """
    if getattr(model, "_is_stateful", False) or not is_available():
        return
    # no list of the linear layers, so that the memory of each is free after its replacement
    parents = [module for module in model.modules() if not isinstance(module, nn.Linear)]
    multiplied = _multiplied_adapters(parents)
    for parent in parents:
        if parent in multiplied:
            continue
        for name, child in list(parent.named_children()):
            if name != "base_layer" and _is_packable(child):
                setattr(parent, name, PackedLinear(child))


def _multiplied_adapters(modules: list[nn.Module]) -> set[nn.Module]:
    """Return the containers of the adapters that peft adds to parameters, not to modules."""
    wrappers = [module for module in modules if hasattr(module, "parameter_name")]
    return {getattr(one, name) for one in wrappers for name in ("lora_A", "lora_B")}


def is_available() -> bool:
    """Return whether this build of PyTorch has the operators."""
    operators = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(operators, name) for name in names)


def _is_packable(module: nn.Module) -> bool:
    """Return whether a module is a plain linear layer; subclasses may have other weights."""
    if type(module) is not nn.Linear:
        return False
    weight = module.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32
