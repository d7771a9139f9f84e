"""What the functions of `galen.api` return: paths, and the numbers that the commands report."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from galen import json_file, manifest
from galen.errors import malformed


@dataclass(frozen=True)
class Output:
    """Output of a command, with its manifest."""

    path: Path
    """Folder, file or prefix of the files."""
    manifest: dict[str, Any]
    """Its `manifest.json`: inputs with hashes, configuration, versions, outputs, counts."""

    @property
    def counts(self) -> dict[str, Any]:
        """Counts of the manifest."""
        return dict(self.manifest.get("counts") or {})


@dataclass(frozen=True)
class Corpus(Output):
    """A curated corpus."""

    @property
    def documents(self) -> int:
        """Number of documents in the corpus."""
        return int(self.counts["kept"])

    @property
    def dropped(self) -> dict[str, int]:
        """Number of dropped documents by step and reason."""
        return dict(self.counts["dropped"])


@dataclass(frozen=True)
class TokenFiles(Output):
    """Token files of one prefix."""

    @property
    def documents(self) -> int:
        """Number of documents."""
        return int(self.counts["documents"])

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self.counts["tokens"])


@dataclass(frozen=True)
class Checkpoint(Output):
    """A Megatron checkpoint, or a model folder."""

    @property
    def parameters(self) -> int | None:
        """Number of parameters, or None if the command does not count them."""
        return self.counts.get("parameters", self.counts.get("weights"))


@dataclass(frozen=True)
class TrainingRun(Output):
    """A finished run of pretraining or fine-tuning."""

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return int(self.counts["steps"] if "steps" in self.counts else self.counts["iteration"])

    @property
    def tokens(self) -> int:
        """Number of tokens trained on."""
        name = "tokens" if "tokens" in self.counts else "consumed_tokens"
        return int(self.counts[name])

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """Records of `log.jsonl`: `kind` is train, validation, checkpoint or event."""
        return read_records(self.path / "log.jsonl")

    @property
    def loss(self) -> float | None:
        """Training loss of the last step."""
        return self._last_loss("train")

    @property
    def validation_loss(self) -> float | None:
        """Loss of the last validation, or None without validations."""
        return self._last_loss("validation")

    def _last_loss(self, kind: str) -> float | None:
        losses = [record["loss"] for record in self.log if record["kind"] == kind]
        return losses[-1] if losses else None


@dataclass(frozen=True)
class Download:
    """Downloaded files."""

    path: Path
    """Folder of the files."""
    files: list[str]
    """Paths of all downloaded files in the folder, as in `downloads.jsonl`."""


@dataclass(frozen=True)
class QuestionFile:
    """A JSONL file of questions."""

    path: Path
    questions: int
    """Number of questions."""


@dataclass(frozen=True)
class QuantizedModel:
    """Measurements of one model, see docs/finetune.md."""

    path: Path
    bytes_on_disk: int
    bytes_in_memory: int
    prompt_tokens_per_second: float
    new_tokens_per_second: float
    accuracy: float | None
    """Fraction of correctly answered questions."""


@dataclass(frozen=True)
class Quantization:
    """Quantized models, and the original they are compared with."""

    path: Path
    original: QuantizedModel
    models: dict[str, QuantizedModel]
    """By method."""


@dataclass(frozen=True)
class Scores:
    """Scores of one model."""

    path: Path
    """Folder of `results.json`."""
    results: dict[str, Any]
    """Contents of `results.json`."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Values of the metrics by task, without intervals: `metrics["pubmedqa"]["accuracy"]`."""
        return {task: _values(entry["metrics"]) for task, entry in self.results["tasks"].items()}


def _values(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: metric["value"] for name, metric in metrics.items()}


@dataclass(frozen=True)
class Rationales:
    """Scores of a model's rationales."""

    path: Path
    """JSONL file with a record per rationale."""
    count: int
    """Number of rationales."""
    metrics: dict[str, float]
    """Mean of each metric over all rationales."""


@dataclass(frozen=True)
class MetricAgreement:
    """Agreement of a metric with judges: Kendall's tau-b and its 95% interval."""

    tau: float
    low: float
    high: float
    best: float
    """Fraction of resamples in which the metric has the highest tau-b."""


def read_manifest(output: str | Path) -> dict[str, Any]:
    """Return the manifest of a folder, or of the files with a prefix; empty if there is none."""
    path = Path(output)
    for candidate in (path / manifest.NAME, Path(f"{path}_{manifest.NAME}")):
        if candidate.is_file():
            return manifest.read(candidate)
    return {}


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSONL file that a command wrote.

    Raises:
        DataError: a line is damaged.
    """
    with malformed(path):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def read_rationales(path: Path) -> Rationales:
    """Return the result of `galen rationales`."""
    records = read_records(path)
    totals: dict[str, float] = {}
    with malformed(path):
        for record in records:
            for name, value in record["metrics"].items():
                totals[name] = totals.get(name, 0.0) + value
    means = {name: total / len(records) for name, total in totals.items()}
    return Rationales(path, len(records), means)


def read_judged(folder: Path, task: str) -> dict[str, dict[str, Any]]:
    """Return the scores that a judge's folder has of a task, by model."""
    files = sorted((folder / "scores").glob(f"*.{task}.json"))
    entries = [json_file.read_object(path) for path in files]
    return {entry["model"]: entry for entry in entries}


def read_progress(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the verdicts that `galen progress` wrote, by model."""
    entries = [json_file.read_object(path) for path in sorted(folder.glob("*.json"))]
    return {entry["model"]: entry for entry in entries}


def read_quantization(folder: Path, model: Path, methods: list[str]) -> Quantization:
    """Return the result of `galen quantize`."""
    original = _quantized_model(model, folder / "original.json")
    models = {
        method: _quantized_model(folder / method, folder / f"{method}.json") for method in methods
    }
    return Quantization(folder, original, models)


def _quantized_model(model: Path, measurements: Path) -> QuantizedModel:
    measured = json_file.read_object(measurements)["measured"]
    correct = measured.pop("correct")
    accuracy = sum(correct) / len(correct) if correct else None
    return QuantizedModel(model, **measured, accuracy=accuracy)
