"""The life of each family of checkpoints_convert: LoRA, merging, a model card, quantization."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evaluation.backends import model_loading
from finetune import export, merge, train
from finetune.data.batch import collate, collate_packed, loss_sum, pack
from finetune.data.sample import Sample
from finetune.quantization import methods
from finetune.training import packing
from galen.errors import DataError, UsageError
from tests.checkpoints_convert import tiny_models
from tests.checkpoints_convert.tiny_models import FAMILIES, MOE

pytestmark = pytest.mark.slow

MODELS = FAMILIES | MOE
TRANSFORMERS = [name for name in MODELS if name != "internlm2"]
RECIPE = """
model: {{path: {base}, add_tokens: ['<|im_start|>', '<|im_end|>']}}
data: {{train: {questions}, max_length: 160, chat_template: chatml}}
lora: {{r: 4, alpha: 8, merge: true, target_parameters: {experts}}}
optimizer: {{lr: 0.02}}
training: {{train_iters: 2, micro_batch_size: 2}}
output: {run}
"""
WITHOUT_PACKING = {"gpt_oss"}
"""Models of transformers 5.24 that build no mask from positions."""
NOT_MERGED = {"phi-4-mini"}
"""Mergekit 0.1.5 wants an output layer in each Phi-3."""
EXPERTS = "[experts.gate_up_proj, experts.down_proj]"


def load(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


@torch.inference_mode()
def logits(model):
    return model(torch.arange(40)[None]).logits[..., :300]


def assert_loaded(adapted, folder: Path, experts: bool):
    """Compare the adapter's weights with those of its file."""
    stored = load_file(folder / "adapter_model.safetensors")
    weights = {
        name.replace(".default", ""): weight
        for name, weight in adapted.state_dict().items()
        if "lora_" in name
    }
    assert weights
    assert all(stored[name].equal(weight) for name, weight in weights.items())
    assert any(".experts." in name for name in weights) == experts


@torch.inference_mode()
def assert_batches(folder: Path):
    """Compare the loss of samples alone with that of a padded batch, and of packed rows."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(1)
    samples = []
    for prompt in (5, 40, 12):  # also longer than a tiny model's window
        ids = torch.randint(1, 300, (prompt + 4,), generator=generator).tolist()
        samples.append(Sample.of(ids[:prompt], ids[prompt:]))
    losses = []
    rows = pack(samples, 64)
    assert max(map(len, rows)) > 1
    for made in (*(collate([one]) for one in samples), collate(samples), collate_packed(rows)):
        labels = made.pop("labels")
        losses.append(loss_sum(model(**made).logits, labels).item())
    *alone, padded, packed = losses
    assert padded == pytest.approx(sum(alone), rel=1e-5)
    if model.config.model_type in WITHOUT_PACKING:
        with pytest.raises(UsageError, match=r"data\.packing: gpt_oss models of this version"):
            packing.check(model)
    else:
        packing.check(model)
        assert packed == pytest.approx(sum(alone), rel=1e-5)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_life(tmp_path, tiny_tokenizer, question_file, name):
    torch.set_num_threads(1)
    base = tmp_path / "base"
    run = tmp_path / "run"
    tiny_models.make(base, name, tiny_tokenizer)
    recipe = tmp_path / "recipe.yaml"
    experts = EXPERTS if name in MOE else "[]"
    recipe.write_text(RECIPE.format(base=base, questions=question_file, experts=experts, run=run))
    assert_batches(base)
    assert train.main([str(recipe)]) == 0

    plain = load(base)
    adapted, _ = model_loading.with_adapter(load(base), None, run / "adapter")
    assert_loaded(adapted, run / "adapter", name in MOE)
    expected = logits(adapted)
    actual = logits(load(run / "model"))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert (actual - logits(plain)).abs().max() > 1e-2
    stored = load_file(run / "model" / "model.safetensors")
    original = load_file(base / "model.safetensors")
    assert stored.keys() == original.keys()
    assert_published(run, tmp_path / "card")
    assert_quantized(run / "model", tmp_path, expected)
    if name in NOT_MERGED:
        with pytest.raises(DataError, match=r"Tensor lm_head\.weight required"):
            assert_merged(base, tmp_path)
    else:
        assert_merged(base, tmp_path)


def assert_published(run: Path, output: Path):
    options = ["--run", str(run), "--output", str(output), "--name", "Tiny"]
    assert export.main([*options, "--license", "apache-2.0"]) == 0
    assert "# Tiny" in (output / "README.md").read_text()
    torch.testing.assert_close(logits(load(output)), logits(load(run / "model")))


def assert_merged(base: Path, folder: Path):
    """Merge a model with one of other weights: every weight must be their mean."""
    pytest.importorskip("mergekit")
    other = folder / "other"
    shutil.copytree(base, other)
    weights = load_file(base / "model.safetensors")
    larger = {name: 1.5 * weight for name, weight in weights.items()}
    save_file(larger, other / "model.safetensors", metadata={"format": "pt"})
    models = "".join(
        f"    - {{model: {one}, parameters: {{weight: 0.5}}}}\n" for one in (base, other)
    )
    (folder / "merge.yaml").write_text(
        f"mergekit:\n  merge_method: linear\n  dtype: float32\n  models:\n{models}"
        f"output: {folder / 'merged'}\n"
    )
    assert merge.main([str(folder / "merge.yaml")]) == 0
    actual = load(folder / "merged").state_dict()
    for name, weight in load(base).state_dict().items():
        torch.testing.assert_close(actual[name], 1.25 * weight)


def assert_quantized(model: Path, folder: Path, expected):
    pytest.importorskip("bitsandbytes")
    methods.check_model(["bnb8"], model)
    methods.write_quantized("bnb8", model, folder / "bnb8", [])
    quantized, _ = model_loading.load_model(folder / "bnb8", dtype=torch.float32)
    difference = (logits(quantized).float() - expected).abs()
    # the median: rounding moves a few tokens to other experts
    assert 0 < difference.mean(-1).median() < 0.04 * expected.std()
