"""`slurm/pipeline.sh`: the entire chain as dependent jobs.

Names have spaces and quotes in them.
"""

import json
import random
import shutil

from tests.conftest import TEXTS

RECIPE = """
output: to be replaced
model: {checkpoint: to be replaced}
data: {train: [to be replaced], validation: [to be replaced], seq_length: 32, num_workers: 0}
training:
  {train_iters: 3, micro_batch_size: 1, global_batch_size: 4, precision: fp32,
    eval_interval: 3, eval_iters: 1, save_interval: 3}
optimizer: {lr: 1e-3}
"""
TUNING = """
model: {path: to be replaced}
data: {train: QUESTIONS, validation_fraction: 0.2, max_length: 96}
lora: {r: 2, alpha: 4}
optimizer: {lr: 0.01}
training: {train_iters: 2, micro_batch_size: 2, save_interval: 2, eval_interval: 2}
output: to be replaced
"""


def documents(folder, count):
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"id": f"d{number}", "text": f"{number}. {TEXTS[number % 4]}", "metadata": {}})
        for number in range(count)
    ]
    (folder / "00000.jsonl").write_text("\n".join(lines) + "\n")


def questions(file):
    numbers = random.Random(3)
    with file.open("w") as lines:
        for number in range(12):
            options = dict(
                zip(
                    "ABCD",
                    numbers.sample(["Aspirin", "Heparin", "Insulin", "Sodium"], 4),
                    strict=True,
                )
            )
            record = {
                "id": f"q{number}",
                "context": f"{options['A']} was given.",
                "question": "What was given?",
                "options": options,
            }
            lines.write(json.dumps({**record, "answer": "A", "pmid": str(number)}) + "\n")


def test_all_stages(cluster, site, tmp_path, tied_llama):
    place = tmp_path / "Jane's files"
    for split, count in (("train", 60), ("validation", 20), ("test", 3)):
        documents(place / "corpus" / split, count)
    model, work = place / "a model", place / "the work"
    shutil.copytree(tied_llama, model)
    (place / "pretrain.yaml").write_text(RECIPE)
    (place / "task.yaml").write_text("kind: perplexity\ndocuments: corpus/test\nmax_tokens: 24\n")
    questions(place / "questions.jsonl")
    (place / "tune.yaml").write_text(
        TUNING.replace("QUESTIONS", json.dumps(str(place / "questions.jsonl")))
    )
    own = tmp_path / "site.sh"
    own.write_text(
        f"source '{site['GALEN_SITE']}'\nGALEN_SBATCH_PRETRAIN=(--nodes=2 --ntasks-per-node=1"
        " --gpus-per-node=0)\nGALEN_SBATCH_FINETUNE=(--nodes=2"
        " --gpus-per-node=0)\nGALEN_SBATCH_CPU=(--cpus-per-task=1 --mem=1G)\nGALEN_CHECK_GPUS=0\n"
    )

    settings = {
        "model": model,
        "corpus": place / "corpus",
        "work": work,
        "recipe": place / "pretrain.yaml",
        "shards": 2,
    }
    settings |= {"finetune": place / "tune.yaml", "tasks": place / "task.yaml", "data": place}
    words = [f"{name}={value}" for name, value in settings.items()]
    before = set(cluster.jobs())
    cluster.command(
        "slurm/pipeline.sh",
        *words,
        "--",
        "training.train_iters=4",
        **{**site, "GALEN_SITE": str(own)},
    )
    numbers = sorted(set(cluster.jobs()) - before)

    def describe():
        return "\n".join(
            f"--- {path.name}\n{path.read_text()}" for path in sorted((work / "logs").glob("*"))
        )

    for number in numbers:
        assert cluster.wait(number, describe)["JobState"] == "COMPLETED", describe()
    assert len(numbers) >= 10
    steps = [
        json.loads(line) for line in (work / "pretrain" / "log.jsonl").read_text().splitlines()
    ]
    assert [record["step"] for record in steps if record["kind"] == "train"] == [1, 2, 3, 4]
    assert json.loads((work / "finetune" / "manifest.json").read_text())["counts"]["processes"] == 2
    losses = {}
    for name in ("base", "pretrained", "finetuned"):
        losses[name] = json.dumps(
            json.loads((work / "scores" / name / "results.json").read_text())["tasks"]
        )
    assert len(set(losses.values())) == 3
    for name in ("pretrained", "finetuned"):
        verdict = json.loads((work / "progress" / f"{name}.json").read_text())
        assert verdict["base"] == "base" and len(verdict["tasks"]) == 1


def test_an_unknown_setting(cluster, site):
    assert "is missing" in cluster.refusal("slurm/pipeline.sh", "model=x", **site)
    assert "unknown setting modle=x" in cluster.refusal("slurm/pipeline.sh", "modle=x", **site)
