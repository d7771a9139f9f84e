"""Published results of the reference models, in percent, in the columns of each paper's table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, and the task of our value."""

    title: str
    tasks: tuple[tuple[str, str], ...]
    """Task and subject (or "" for the entire task) in order of preference."""


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of a paper; each row ends with the printed average."""

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: dict[str, tuple[float, ...]]


def _column(title: str, *tasks: str) -> Column:
    return Column(title, tuple((task, "") for task in tasks))


def _mmlu(title: str, subject: str) -> Column:
    return Column(
        title,
        (
            ("mmlu_biomistral", subject),
            ("mmlu_medical", subject),
            ("biomistral_english", f"MMLU_{subject}"),
        ),
    )


MEDITRON = PublishedTable(
    "meditron",
    "As MEDITRON reports it: accuracy, %",
    "Chen et al. 2023, arXiv 2311.16079; few-shot rows: 3 shots for 7B, 5 for 70B, mean of three"
    " seeds",
    (
        _column("MMLU-Medical", "mmlu_medical"),
        _column("PubMedQA", "pubmedqa"),
        _column("MedMCQA", "medmcqa"),
        _column("MedQA", "medqa"),
        _column("MedQA-4-option", "medqa_4options"),
    ),
    {
        "few-shot Llama-2-7B": (41.4, 49.1, 37.9, 29.1, 35.4, 38.6),
        "few-shot MEDITRON-7B": (42.3, 69.3, 36.3, 28.7, 37.4, 42.8),
        "few-shot Llama-2-70B": (71.3, 72.8, 52.4, 49.0, 58.4, 60.8),
        "few-shot MEDITRON-70B": (71.5, 79.8, 53.3, 52.0, 59.8, 63.3),
        "fine-tuned MEDITRON-7B, top token": (55.6, 74.4, 59.2, 47.9, 52.0, 57.5),
        "fine-tuned MEDITRON-70B, top token": (73.6, 80.0, 65.1, 60.7, 65.4, 69.0),
        "fine-tuned MEDITRON-70B, chain of thought": (74.9, 81.0, 63.2, 61.5, 67.8, 69.7),
        "fine-tuned MEDITRON-70B, self-consistency": (77.6, 81.6, 66.0, 64.4, 70.2, 72.0),
    },
)

MMEDBENCH = PublishedTable(
    "mmedbench",
    "As MMedBench reports it: accuracy (all right options and no other), %",
    "Qiu et al. 2024, Nature Communications 15:8384, arXiv 2402.13963; the printed average of GPT-4"
    " is not the mean of its row (75.31)",
    tuple(
        _column(name.capitalize(), f"mmedbench_{name}")
        for name in ("english", "chinese", "japanese", "french", "russian", "spanish")
    ),
    {
        "GPT-3.5": (56.88, 52.29, 34.63, 32.48, 66.36, 66.06, 51.47),
        "GPT-4": (78.00, 75.07, 72.91, 56.59, 83.62, 85.67, 74.27),
        "Mistral-7B": (61.74, 71.10, 44.72, 48.71, 74.22, 63.86, 60.73),
        "BioMistral-7B": (57.82, 71.54, 37.19, 47.27, 69.92, 60.98, 57.45),
        "MEDITRON-7B": (55.46, 61.88, 40.20, 35.05, 67.58, 53.28, 52.24),
        "InternLM2-7B": (57.27, 77.55, 47.74, 41.00, 68.36, 59.59, 58.59),
        "MMedLM (7B)": (49.88, 70.49, 46.23, 36.66, 72.27, 54.52, 55.01),
        "MMedLM 2 (7B)": (61.74, 80.01, 61.81, 52.09, 80.47, 67.65, 67.30),
        "MMed-Llama 3 (8B)": (66.06, 79.25, 61.81, 55.63, 75.39, 68.38, 67.75),
        "MMed-Llama 3.1 (70B)": (80.60, 87.71, 76.88, 73.47, 82.03, 82.35, 80.51),
    },
)

BIOMISTRAL = PublishedTable(
    "biomistral",
    "As BioMistral reports it: accuracy, %",
    "Labrak et al. 2024, arXiv 2402.10373; after fine-tuning, 3 shots, mean of three sets of"
    " few-shot examples; GPT-3.5 is not fine-tuned",
    (
        _mmlu("Clinical KG", "clinical_knowledge"),
        _mmlu("Medical Genetics", "medical_genetics"),
        _mmlu("Anatomy", "anatomy"),
        _mmlu("Pro Medicine", "professional_medicine"),
        _mmlu("College Biology", "college_biology"),
        _mmlu("College Medicine", "college_medicine"),
        Column("MedQA", (("medqa_4options", ""), ("biomistral_english", "MedQA"))),
        Column("MedQA 5 opts", (("medqa", ""), ("biomistral_english", "MedQA-5_options"))),
        Column("PubMedQA", (("pubmedqa", ""), ("biomistral_english", "PubMedQA"))),
        Column("MedMCQA", (("medmcqa", ""), ("biomistral_english", "MedMCQA"))),
    ),
    {
        "BioMistral-7B": (59.9, 64.0, 56.5, 60.4, 59.0, 54.7, 50.6, 42.8, 77.5, 48.1, 57.3),
        "Mistral-7B-Instruct": (62.9, 57.0, 55.6, 59.4, 62.5, 57.2, 42.0, 40.9, 75.7, 46.1, 55.9),
        "BioMistral ensemble": (62.8, 62.7, 57.5, 63.5, 64.3, 55.7, 50.6, 43.6, 77.5, 48.8, 58.7),
        "BioMistral DARE": (62.3, 67.0, 55.8, 61.4, 66.9, 58.0, 51.1, 45.2, 77.7, 48.7, 59.4),
        "BioMistral TIES": (60.1, 65.0, 58.5, 60.5, 60.4, 56.5, 49.5, 43.2, 77.5, 48.1, 57.9),
        "BioMistral SLERP": (62.5, 64.7, 55.8, 62.7, 64.8, 56.3, 50.8, 44.3, 77.8, 48.6, 58.8),
        "MEDITRON-7B": (41.6, 50.3, 46.4, 27.9, 44.4, 30.8, 41.6, 28.1, 74.9, 41.3, 42.7),
        "GPT-3.5": (74.71, 74.00, 65.92, 72.79, 72.91, 64.73, 57.71, 50.82, 72.66, 53.79, 66.0),
    },
)

TABLES = (MEDITRON, MMEDBENCH, BIOMISTRAL)
