"""Merges of tiny models, against the formulas of the papers written down here with numpy."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import merge
from galen import manifest
from galen.errors import DataError, UsageError
from tests.checkpoints_convert.test_checksums import flip

EXAMPLES = Path("examples/merge")


@pytest.fixture(scope="module")
def models(make_llama, tmp_path_factory):
    """A base and two other models: weights by name."""
    pytest.importorskip("mergekit")
    folders = [make_llama(num_hidden_layers=5, hidden_size=32, tie_word_embeddings=False)]
    rng = np.random.default_rng(5)
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"other{number}")
        model = AutoModelForCausalLM.from_pretrained(folders[0])
        for parameter in model.parameters():
            parameter.data += parameter.data.new_tensor(rng.normal(0, 0.05, parameter.shape))
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(folders[0]).save_pretrained(folder)
        folders.append(folder)
    return {folder: load_file(folder / "model.safetensors") for folder in folders}


def merged(models, tmp_path, example):
    """Run a published recipe on the tiny models, in float32, and return its weights."""
    tree = yaml.safe_load((EXAMPLES / example).read_text())
    base, first, second = models
    text = (
        json.dumps(tree["mergekit"])
        .replace("models/Mistral-7B-Instruct-v0.1", str(base))
        .replace("models/BioMistral-7B", str(first))
    )
    text = text.replace("models/A", str(first)).replace("models/B", str(second))
    tree["mergekit"] = {**json.loads(text), "dtype": "float32"}
    for part in tree["mergekit"].get("slices", []):
        for source in part["sources"]:
            source["layer_range"] = [0, 5]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**tree, "output": str(tmp_path / "out")}))
    assert merge.main([str(tmp_path / "recipe.yaml")]) == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode(
        "a"
    ) == AutoTokenizer.from_pretrained(base).encode("a")
    return load_file(tmp_path / "out" / "model.safetensors"), *models.values()


def test_linear_is_the_weighted_mean(models, tmp_path):
    found, _, first, second = merged(models, tmp_path, "linear.yaml")
    for name in first:
        np.testing.assert_allclose(found[name], 0.5 * first[name] + 0.5 * second[name], atol=1e-6)


def test_slerp_goes_along_the_arc_with_the_published_gradients(models, tmp_path):
    found, base, first, _ = merged(models, tmp_path, "biomistral_slerp.yaml")
    # five layers: one value each
    gradients = {"self_attn": [0, 0.5, 0.3, 0.7, 1], "mlp": [1, 0.5, 0.7, 0.3, 0]}
    for name in base:
        t = 0.5
        for part, values in gradients.items():
            if part in name:
                t = values[int(name.split(".")[2])]
        a, b = base[name].astype(np.float64).ravel(), first[name].astype(np.float64).ravel()
        angle = math.acos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
        if math.cos(angle) > 0.9995:
            expected = (1 - t) * a + t * b
        else:
            expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
        np.testing.assert_allclose(found[name].ravel(), expected, atol=1e-5, err_msg=name)


def test_ties_keeps_the_larger_half_of_the_difference(models, tmp_path):
    """With one model beside the base, normalizing removes its weight: base + trimmed difference."""
    found, base, first, _ = merged(models, tmp_path, "biomistral_ties.yaml")
    for name in base:
        delta = first[name] - base[name]
        bound = np.sort(np.abs(delta).ravel())[::-1][delta.size // 2 - 1]
        np.testing.assert_allclose(
            found[name],
            base[name] + np.where(np.abs(delta) >= bound, delta, 0),
            atol=1e-6,
            err_msg=name,
        )


def test_dare_drops_a_random_half_and_makes_up_for_it_the_same_for_the_same_seed(models, tmp_path):
    found, base, first, _ = merged(models, tmp_path, "biomistral_dare.yaml")
    kept = total = 0
    for name in base:
        delta, change = (
            (first[name] - base[name]).astype(np.float64),
            (found[name] - base[name]).astype(np.float64),
        )
        here = np.abs(change) > 1e-7
        # what is kept is scaled back to the whole's size
        scale = np.abs(delta).sum() / np.abs(delta[here]).sum()
        np.testing.assert_allclose(change[here], 0.5 * scale * delta[here], atol=2e-6, err_msg=name)
        kept, total = kept + here.sum(), total + here.size
    assert abs(kept / total - 0.5) < 4 * math.sqrt(0.25 / total)
    again = tmp_path / "again"
    merge.main([str(tmp_path / "recipe.yaml"), f"output={again}"])
    assert all(
        np.array_equal(value, found[name])
        for name, value in load_file(again / "model.safetensors").items()
    )


def test_a_finished_merge_reports_it_and_the_manifest_names_the_models(models, tmp_path, caplog):
    caplog.set_level("INFO")
    merged(models, tmp_path, "linear.yaml")
    assert merge.main([str(tmp_path / "recipe.yaml")]) == 0
    assert "already complete" in caplog.text
    with pytest.raises(DataError, match=r"mergekit\.models\.0\.parameters\.weight: "):
        merge.main([str(tmp_path / "recipe.yaml"), "mergekit.models.0.parameters.weight=0.1"])
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    paths = [record["path"] for record in written["inputs"]]
    assert all(any(path.startswith(str(folder)) for path in paths) for folder in list(models)[1:])


def test_an_altered_model_is_merged_only_when_asked(models, tmp_path, caplog):
    whole = merged(models, tmp_path, "linear.yaml")
    *_, last = models
    altered = shutil.copytree(last, tmp_path / "altered")
    manifest.write(
        altered / manifest.NAME,
        stage="finetune",
        inputs=[],
        config={},
        outputs=[altered / "model.safetensors"],
        counts={},
    )
    flip(altered / "model.safetensors")
    text = (tmp_path / "recipe.yaml").read_text().replace(str(last), str(altered))
    (tmp_path / "recipe.yaml").write_text(text)
    arguments = [str(tmp_path / "recipe.yaml"), f"output={tmp_path / 'other'}"]
    with pytest.raises(
        DataError,
        match=r"model\.safetensors was altered: its SHA-256 is not the one in its manifest",
    ):
        merge.main(arguments)
    assert not (tmp_path / "other").exists()
    assert merge.main([*arguments, "verify_checksums=false"]) == 0
    assert f"{altered} is read without comparing it" in caplog.text
    assert load_file(tmp_path / "other" / "model.safetensors").keys() == whole[0].keys()


def test_other_vocabularies_are_refused(models, tmp_path):
    _, first, second = models
    tokenizer = AutoTokenizer.from_pretrained(second)
    tokenizer.add_tokens(["[bib_ref]"])
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(second).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(DataError, match=r"different vocabularies.*tokenizer_source"):
        merge.main(
            [
                str(EXAMPLES / "linear.yaml"),
                f"mergekit.models.0.model={first}",
                f"mergekit.models.1.model={other}",
                "output=x",
            ]
        )


def test_layers_that_a_model_has_not_are_reported_before_any_work(models, make_llama, tmp_path):
    _, first, second = models
    start = [str(EXAMPLES / "biomistral_slerp.yaml"), f"output={tmp_path / 'out'}"]
    start += [f"mergekit.base_model={first}", f"mergekit.slices.0.sources.0.model={first}"]
    start += [f"mergekit.slices.0.sources.1.model={second}"]
    with pytest.raises(
        DataError,
        match=rf"slices\.0: layer_range \[0, 32\], but {first} has 5 layers; give a range",
    ):
        merge.main(start)
    start += ["mergekit.slices.0.sources.0.layer_range=[0, 5]"]
    with pytest.raises(DataError, match=r"number of layers, not \[0, 5\] and \[0, 4\]"):
        merge.main([*start, "mergekit.slices.0.sources.1.layer_range=[0, 4]"])
    short = make_llama(num_hidden_layers=2, hidden_size=32, tie_word_embeddings=False)
    linear = [str(EXAMPLES / "linear.yaml"), f"mergekit.models.0.model={first}"]
    with pytest.raises(DataError, match=rf"different numbers of layers \(.*{short} 2.*\); name"):
        merge.main([*linear, f"mergekit.models.1.model={short}", f"output={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mergekit.merge_method=slurp"], "'slurp' is none of .*slerp"),
        (["mergekit.models=3"], "mergekit refuses its configuration"),
        (
            [],
            "there is no model folder models/A; download it into that folder: hf download"
            " OWNER/NAME --local-dir models/A$",
        ),
        (["mergekit.mrege_method=linear"], r"mergekit\.mrege_method: linear knows no such key"),
        (
            ["mergekit.models.1.parameters.wieght=1"],
            r"mergekit\.models\.1\.parameters\.wieght: linear knows no such key",
        ),
        (["ensemble.scores=[a]"], "give either mergekit or ensemble"),
    ],
)
def test_mistakes_are_reported_before_any_work(overrides, message):
    pytest.importorskip("mergekit")
    with pytest.raises(UsageError, match=message):
        merge.main([str(EXAMPLES / "linear.yaml"), *overrides])


def scored(folder, probabilities, answers="AB"):
    """Write a scored folder of one task by hand."""
    (folder / "samples").mkdir(parents=True)
    with (folder / "samples" / "quiz.jsonl").open("w") as file:
        for number, (row, answer) in enumerate(zip(probabilities, answers, strict=True)):
            logprobs = {letter: math.log(value) for letter, value in zip("ABC", row, strict=True)}
            prediction = max(logprobs, key=logprobs.get)
            item = {
                "id": str(number),
                "answer": answer,
                "prediction": prediction,
                "correct": prediction == answer,
                "logprobs": logprobs,
            }
            file.write(json.dumps(item) + "\n")
    tasks = {
        "quiz": {
            "kind": "multiple_choice",
            "samples": len(answers),
            "chance": 1 / 3,
            "metrics": {},
            "interval": "",
        }
    }
    model = {"name": folder.name, "path": folder.name, "adapter": None}
    (folder / "results.json").write_text(
        json.dumps({"model": model, "protocol": "lm_eval", "tasks": tasks, "versions": {}})
    )
    return folder


def test_an_ensemble_adds_probabilities_not_votes(tmp_path, caplog):
    """Two of three models lean to B in the first question.

    The third's certainty of A outweighs them.
    """
    caplog.set_level("INFO")
    folders = [
        scored(tmp_path / "one", [(0.40, 0.45, 0.1), (0.1, 0.6, 0.2)]),
        scored(tmp_path / "two", [(0.40, 0.45, 0.1), (0.2, 0.1, 0.6)]),
        scored(tmp_path / "three", [(0.90, 0.05, 0.01), (0.1, 0.8, 0.1)]),
    ]
    names = ", ".join(map(str, folders))
    merge.main(
        [
            str(EXAMPLES / "ensemble.yaml"),
            f"ensemble.scores=[{names}]",
            f"output={tmp_path / 'sum'}",
        ]
    )
    first, second = (
        json.loads(line)
        for line in (tmp_path / "sum" / "samples" / "quiz.jsonl").read_text().splitlines()
    )
    assert (
        (first["prediction"], second["prediction"]) == ("A", "B")
        and first["correct"]
        and second["correct"]
    )
    assert math.exp(first["logprobs"]["B"]) == pytest.approx((0.45 + 0.45 + 0.05) / 3)
    results = json.loads((tmp_path / "sum" / "results.json").read_text())
    assert results["tasks"]["quiz"]["metrics"]["accuracy"]["value"] == 1.0
    assert results["model"]["name"] == "one + two + three"
    merge.main(
        [
            str(EXAMPLES / "ensemble.yaml"),
            f"ensemble.scores=[{names}]",
            f"output={tmp_path / 'sum'}",
        ]
    )
    assert "already complete" in caplog.text


def test_an_ensemble_of_different_questions_is_refused(tmp_path):
    one, two = (
        scored(tmp_path / "one", [(0.5, 0.3, 0.2)], "A"),
        scored(tmp_path / "two", [(0.5, 0.3, 0.2)], "B"),
    )
    with pytest.raises(DataError, match="the question '0' is not the same"):
        merge.main(
            [
                str(EXAMPLES / "ensemble.yaml"),
                f"ensemble.scores=[{one}, {two}]",
                f"output={tmp_path / 'sum'}",
            ]
        )
    with pytest.raises(UsageError, match="two models or more"):
        merge.main(
            [
                str(EXAMPLES / "ensemble.yaml"),
                f"ensemble.scores=[{one}]",
                f"output={tmp_path / 'sum'}",
            ]
        )
