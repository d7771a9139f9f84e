"""Layers of Transformer Engine's modules, for which plain PyTorch stands in, beside PyTorch's.

Usage: CHECKPOINT… For each, prints the largest difference of a logit between the two kinds of
layers, relative to the largest logit.

The stand-ins compute what Transformer Engine documents for the arguments that they get. The test
thus covers which modules Galen and Megatron Core choose, which arguments and checkpoint tensors
these get, but none of Transformer Engine's code.
"""

import contextlib
import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
import types
from pathlib import Path

import torch

ENGINE = "transformer_engine"


class Linear(torch.nn.Module):
    def __init__(self, in_features, out_features, *, bias, params_dtype, return_bias=False, **_):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(out_features, in_features, dtype=params_dtype))
        self.return_bias = return_bias
        if bias:
            self.bias = torch.nn.Parameter(torch.empty(out_features, dtype=params_dtype))
        else:
            self.bias = None

    def forward(self, inputs, **_):
        if self.return_bias:
            return torch.nn.functional.linear(inputs, self.weight), self.bias
        return torch.nn.functional.linear(inputs, self.weight, self.bias)

    def get_extra_state(self):
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state):
        pass


class RMSNorm(torch.nn.Module):
    def __init__(self, hidden_size=None, *, eps, zero_centered_gamma, normalized_shape=None, **_):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(hidden_size or normalized_shape))
        self.eps = eps
        self.zero_centered_gamma = zero_centered_gamma

    def forward(self, inputs):
        return normalize(inputs, self.weight, self.eps, self.zero_centered_gamma)


class LayerNormLinear(Linear):
    def __init__(
        self, in_features, out_features, *, eps, normalization, zero_centered_gamma, **options
    ):
        super().__init__(in_features, out_features, **options)
        assert normalization == "RMSNorm"
        self.layer_norm_weight = torch.nn.Parameter(torch.empty(in_features))
        self.eps = eps
        self.zero_centered_gamma = zero_centered_gamma

    def forward(self, inputs, **_):
        weight = self.layer_norm_weight
        return super().forward(normalize(inputs, weight, self.eps, self.zero_centered_gamma))


def normalize(inputs, weight, eps, zero_centered_gamma):
    gamma = weight + 1 if zero_centered_gamma else weight
    return torch.nn.functional.rms_norm(inputs, gamma.shape, gamma, eps)


class DotProductAttention(torch.nn.Module):
    def __init__(
        self, num_attention_heads, kv_channels, *, window_size=None, softmax_scale=None, **_
    ):
        super().__init__()
        self.window_size = window_size
        self.scale = softmax_scale

    def forward(self, query_sbhd, key_sbhd, value_sbhd, *_, **__):
        query, key, value = (
            tensor.permute(1, 2, 0, 3) for tensor in (query_sbhd, key_sbhd, value_sbhd)
        )
        length = query.size(2)
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        if self.window_size not in (None, (-1, 0)):
            mask = mask.triu(-self.window_size[0])
        context = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.scale, enable_gqa=True
        )
        return context.permute(2, 0, 1, 3).flatten(2)


STAND_INS = {
    f"{ENGINE}.pytorch": {
        stand_in.__name__: stand_in
        for stand_in in (Linear, RMSNorm, LayerNormLinear, DotProductAttention)
    },
    f"{ENGINE}.pytorch.cpu_offload": {
        "get_cpu_offload_context": lambda *_, **__: (contextlib.nullcontext(), None)
    },
}


class EmptyModule(types.ModuleType):
    """A module in which each name is another one, or an empty class."""

    __path__ = ()
    __version__ = "2.2.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            value = type(name, (torch.nn.Module,), {})
        else:
            value = importlib.import_module(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class StandInEngine(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != ENGINE:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return EmptyModule(spec.name)

    def exec_module(self, module):
        for name, value in STAND_INS.get(module.__name__, {}).items():
            setattr(module, name, value)


def install():
    """Let Megatron Core find the stand-ins; to be called before it is imported."""
    sys.meta_path.insert(0, StandInEngine())
    installed = importlib.metadata.version

    def version(name):
        is_engine = name.replace("-", "_") == ENGINE
        return EmptyModule.__version__ if is_engine else installed(name)

    importlib.metadata.version = version
    importlib.import_module(f"{ENGINE}.pytorch")  # else `bootstrap` would hide it without a GPU


def main():
    install()
    from megatron_ext import bootstrap

    bootstrap()

    from megatron.core.transformer import attention

    import megatron_ext.training.training_state  # noqa: F401  # before the CPU platform
    from checkpoints_convert.conversion import megatron_logits
    from megatron_ext.checkpoint import checkpoint_folder
    from megatron_ext.config.architecture import read_architecture
    from megatron_ext.config.sections import Parallel
    from megatron_ext.hardware import parallel_groups, platforms

    class EnginePlatform(platforms.Platform):
        @property
        def model_options(self):
            kernels = ("apply_rope_fusion", "gradient_accumulation_fusion")
            return super().model_options | dict.fromkeys(kernels, False)

    attention.SplitAlongDim = None  # a kernel
    plain = platforms.current_platform()
    engine = EnginePlatform(**dataclasses.asdict(plain) | {"transformer_engine": True})
    plain.init_distributed()
    parallel_groups.initialize(Parallel(), seed=1)
    tokens = torch.randint(300, (2, 48), generator=torch.Generator().manual_seed(1))
    for checkpoint in sys.argv[1:]:
        folder = checkpoint_folder.newest(checkpoint)
        logits = []
        for platform in (plain, engine):
            platforms.current_platform = lambda platform=platform: platform
            shape = read_architecture(folder)
            logits.append(
                megatron_logits.compute(
                    folder, shape, tokens, tensor=1, pipeline=1, expert=1, dtype="fp32"
                )
            )
        difference = (logits[0] - logits[1]).abs().max() / logits[0].abs().max()
        print(f"{Path(checkpoint).name}: {float(difference):.3g}")


if __name__ == "__main__":
    main()
