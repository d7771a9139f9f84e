"""Megatron-Bridge's own conversion of a model's tensors, compared with Galen's.

Started by test_bridge.py with the Python of Megatron-Bridge's environment, not with Galen's.

Usage: FOLDER… each with a Hugging Face folder `hf` and Galen's import of it, `megatron`.

No model is built: each tensor of Galen's checkpoint goes through Megatron-Bridge's mapping of the
parameter (`megatron_to_hf`), and the result is compared with the Hugging Face folder, bit by bit;
then the Hugging Face tensors go through `hf_to_megatron`, and are compared with Galen's. A tensor
of an expert has the name of the parameter in Megatron Core's grouped MLP. The arguments of Megatron
Core's model are compared, too. Where Transformer Engine is not installed, empty modules take its
place: importing Megatron-Bridge needs its names only.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import math
import re
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file

from megatron_ext.checkpoint.torch_dist import LAYERS, TorchDist
from megatron_ext.config.architecture import read_architecture

_ENGINE = "transformer_engine"
_BEFORE = (
    "megatron.core.models.gpt.gpt_layer_specs",
    "megatron.core.optimizer",
    "transformers",
)
"""Modules that must not find the empty one."""
_WRITTEN_OTHERWISE = {
    "gemma3_text": {"window_size", "window_attn_skip_freq"},  # an attention class of its own
    "gpt_oss": {"add_qkv_bias", "window_attn_skip_freq"},  # implied by add_bias_linear; 2
    "olmoe": {"qk_layernorm"},  # a class of its own over the full width
}
"""Arguments that Megatron-Bridge expresses in another way."""
_EXPERTS = re.compile(r"\.mlp\.experts\.experts\.(linear_fc[12]\.(?:weight|bias))$")


class _EmptyModule(types.ModuleType):
    __path__ = ()
    __version__ = "2.20.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            value = type(name, (torch.nn.Module,), {})
        else:
            value = _EmptyModule(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class _EmptyEngine(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != _ENGINE:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _EmptyModule(spec.name)

    def exec_module(self, module):
        pass


def parameters(folder):
    """Yield the model's parameters under the names that they have in Megatron Core's model."""
    stored = TorchDist(folder)
    for key, value in stored.tensors.items():
        size = tuple(value.size)
        if not key.startswith(LAYERS):
            yield key, stored.rows(key, (), 0, size[0])
            continue
        for layer in range(size[0]):
            name = key.replace(LAYERS, f"{LAYERS}{layer}.")
            if not _EXPERTS.search(name):
                yield name, stored.rows(key, (layer,), 0, size[1])
                continue
            for expert in range(size[1]):
                grouped = _EXPERTS.sub(rf".mlp.experts.\g<1>{expert}", name)
                yield grouped, stored.rows(key, (layer, expert), 0, size[2])


def owner(name, config):
    """Return a module of the class that has the parameter in Megatron-Bridge's model."""
    row_parallel = ("linear_proj.", "linear_fc2.")
    if "layernorm" in name or "router" in name or "gate_weight" in name:
        kind = "TENorm"
    elif any(part in name for part in row_parallel):
        kind = "TERowParallelLinear"
    else:
        kind = "TELayerNormColumnParallelLinear"
    module = type(kind, (torch.nn.Module,), {})()
    module.config = config
    return module


def with_parameter(module, name, tensor):
    """Give a module the parameter that some mappings look up, by its last name."""
    last = re.sub(r"\d+$", "0", name.rsplit(".", 1)[1])
    setattr(module, last, torch.nn.Parameter(torch.empty_like(tensor)))
    return module


def differing_arguments(architecture, config):
    """Return the arguments of Megatron Core's model that Megatron-Bridge sets differently."""
    wrong = []
    skipped = _WRITTEN_OTHERWISE.get(architecture.family, set())
    arguments = architecture.core_arguments()
    for name, expected in arguments.items():
        if name in skipped:
            continue
        actual = getattr(config, name, None)
        if name == "activation_func":
            expected = expected.rpartition(".")[2]
            actual = actual.__name__
        elif name == "kv_channels" and actual is None:
            actual = config.hidden_size // config.num_attention_heads
        elif name == "softmax_scale" and actual is not None:
            actual = expected if math.isclose(expected, actual) else actual
        elif isinstance(expected, tuple) and actual is not None:
            actual = tuple(actual)
        if actual != expected:
            wrong.append(f"{name} = {expected!r} is {actual!r} in Megatron-Bridge")
    base = architecture.rotary_base
    if architecture.local_rotary_base is not None:
        base = (architecture.local_rotary_base, base)
    if config.rotary_base != base:
        wrong.append(f"rotary_base = {base!r} is {config.rotary_base!r} in Megatron-Bridge")
    return wrong


def compare(folder):
    """Return the number of compared tensors and a list of differences."""
    from megatron.bridge import AutoBridge

    bridge = AutoBridge.from_hf_pretrained(str(folder / "hf"))
    config = bridge.to_megatron_provider(load_weights=False)
    registry = bridge._model_bridge.mapping_registry()
    expected = load_file(folder / "hf" / "model.safetensors")
    actual = {}
    iteration = folder / "megatron" / "iter_0000000"
    wrong = differing_arguments(read_architecture(iteration), config)
    for name, tensor in parameters(iteration):
        mapping = registry.megatron_to_hf_lookup(name)
        if mapping is None:
            wrong.append(f"{name}: Megatron-Bridge has no such parameter")
            continue
        module = with_parameter(owner(name, config), name, tensor)
        for hf, converted in mapping.megatron_to_hf(tensor, module).items():
            if getattr(mapping, "is_grouped_export", False):
                actual.setdefault(hf, []).append(converted)
            else:
                actual[hf] = converted
        wrong += [
            f"{name} differs from Megatron-Bridge's"
            for back in [to_megatron(mapping, expected, module)]
            if back is not None and not back.equal(tensor[: len(back)])
        ]
    for hf, tensor in actual.items():
        whole = torch.stack(tensor) if isinstance(tensor, list) else tensor
        if hf not in expected or not whole[: len(expected[hf])].equal(expected[hf]):
            wrong.append(f"{hf} differs in Hugging Face's folder")
    wrong += [f"{hf} was not converted" for hf in expected.keys() - actual.keys()]
    return len(actual), wrong


def to_megatron(mapping, hf, module):
    """Return the tensor that Megatron-Bridge makes from Hugging Face's."""
    names = mapping.hf_param
    if isinstance(names, str):
        return mapping.hf_to_megatron(hf[names], module) if names in hf else None
    return mapping.hf_to_megatron({part: hf[name] for part, name in names.items()}, module)


def prepare():
    """Make Megatron-Bridge importable without Transformer Engine."""
    for name in _BEFORE:
        importlib.import_module(name)
    if importlib.util.find_spec(_ENGINE) is None:
        sys.meta_path.append(_EmptyEngine())


def main():
    prepare()
    failed = False
    for path in sys.argv[1:]:
        count, wrong = compare(Path(path))
        print(f"{Path(path).name}: {count} tensors, {len(wrong)} differences", *wrong[:5], sep="\n")
        failed |= bool(wrong) or not count
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
