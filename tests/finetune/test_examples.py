"""The published recipes, two steps each on a tiny model, from files in published layouts."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from finetune import train
from finetune.config.recipe import Recipe, Source
from galen import recipe

# the demo runs that
EXAMPLES = sorted(
    path for path in Path("examples/finetune").glob("*.yaml") if path.stem != "mesh_topics_lora"
)


def medqa(number):
    options = {"A": "aspirin", "B": "heparin", "C": "insulin", "D": "sodium", "E": "iron"}
    return {
        "question": f"What did case {number} get?",
        "options": options,
        "answer_idx": "B",
        "answer": "heparin",
        "meta_info": "step1",
    }


def medmcqa(number):
    options = {"opa": "aspirin", "opb": "heparin", "opc": "insulin", "opd": "sodium"}
    return {
        "id": f"m{number}",
        "question": f"What helps in case {number}?",
        **options,
        "cop": 2,
        "exp": "It thins blood.",
    }


def pubmedqa(number):
    return {
        "QUESTION": f"Did trial {number} help?",
        "CONTEXTS": [f"Trial {number} had {number} adults."],
        "final_decision": "yes",
    }


def mmedbench(number):
    record = {
        "question": f"What is seen in case {number}?",
        "options": {"A": "a", "B": "b", "C": "c"},
        "answer_idx": "A,C",
    }
    return {**record, "rationale": "Both.", "human_checked": True, "human_check_passed": True}


SETS = {"medqa": medqa, "medmcqa": medmcqa, "pubmedqa": pubmedqa, "mmedbench": mmedbench}


def write(source: Source, root: Path, first: int):
    """Write 16 records of a source's set where the recipe has it, below another folder."""
    path = root / source.source
    path = path / "English.jsonl" if path.suffix == "" else path
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [SETS[source.set](number) for number in range(first, first + 16)]
    if source.set == "pubmedqa":
        path.write_text(
            json.dumps({str(first + number): record for number, record in enumerate(records)})
        )
        ids = source.ids or source.exclude_ids
        if ids is not None:  # half of the file's questions are test questions
            (root / ids).write_text(json.dumps({str(first + number): "yes" for number in range(8)}))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_recipe_runs_from_published_files(path, tmp_path, monkeypatch, make_llama):
    torch.set_num_threads(1)
    if "quantization: " in path.read_text():
        pytest.importorskip("bitsandbytes")
    options = recipe.load(Recipe, path)
    sources = [
        *options.data.decontaminate_against,
        *(options.data.validation or []),
        *options.data.train,
    ]
    for source in sources:
        write(source, tmp_path, 100 * [other.source for other in sources].index(source.source))
    shutil.copy(path, tmp_path / "recipe.yaml")
    monkeypatch.chdir(tmp_path)
    model = make_llama(num_hidden_layers=1, max_position_embeddings=1024)
    change = [
        "training.epochs=null",
        "training.train_iters=2",
        "training.fsdp=false",
        "training.micro_batch_size=2",
    ]
    share = ["data.validation_fraction=0.5"] if options.data.validation_fraction else []
    train.main(
        [
            "recipe.yaml",
            f"model.path={model}",
            "output=run",
            "training.gradient_accumulation_steps=1",
            *change,
            *share,
        ]
    )
    counts = json.loads((tmp_path / "run" / "manifest.json").read_text())["counts"]
    assert (
        counts["steps"] == 2
        and counts["samples"]["truncated"] == 0
        and counts["records"]["excluded_as_contaminated"] == 0
    )
    forms = sum(len(source.templates or [""]) for source in options.data.train)
    assert counts["samples"]["train"] + counts["samples"]["validation"] >= 8 * forms
