"""Published results of the reference models, in percent, in the columns of each paper's table.

Every figure was read at its source: MEDITRON's in the paper (tables 4 and 5), MMedLM's in the
README of the authors' repository and the paper (tables 3 and 4), BioMistral's in the README. Not
included because their source was not available: the rationale scores of Llama 3 and MMed-Llama 3 by
language (only their averages), and BioMistral's tables by language.
"""

from dataclasses import dataclass

Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, the task of our value, and the size of the published test set."""

    title: str
    tasks: tuple[tuple[str, str], ...]
    """Task and subject (or "" for the entire task) in order of preference."""
    samples: tuple[int, ...]
    """Numbers of samples that are the full test set."""


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of a paper; each row ends with the printed average."""

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    protocols: dict[str, tuple[int, ...]]
    """Protocols of the table, each with its numbers of few-shot examples.

    Empty if the paper does not give the prompts.
    """
    rows: dict[str, Values]
    metric: str = "accuracy"
    """`accuracy`, or a metric of `galen rationales`."""

    @property
    def conditions(self) -> str:
        """Return the table's protocols with their numbers of few-shot examples."""
        fields = []
        for protocol, shots in self.protocols.items():
            fields.append(f"{protocol} with {' or '.join(map(str, shots))} shots")
        return ", ".join(fields)


def _column(title: str, task: str, *samples: int) -> Column:
    return Column(title, ((task, ""),), samples)


def _mmlu(title: str, subject: str, samples: int) -> Column:
    tasks = (
        ("mmlu_biomistral", subject),
        ("mmlu_medical", subject),
        ("biomistral_english", f"MMLU_{subject}"),
    )
    return Column(title, tasks, (samples,))


def _or_biomistral(title: str, task: str, name: str, samples: int) -> Column:
    return Column(title, ((task, ""), ("biomistral_english", name)), (samples,))


MEDITRON = PublishedTable(
    "meditron",
    "As MEDITRON reports it: accuracy, %",
    "Chen et al. 2023, arXiv 2311.16079, tables 4 and 5. Few-shot rows: 3 shots for 7B, 5 for 70B,"
    " mean of three seeds. Rows with * are instruction-tuned models, not fine-tuned on the training"
    " sets. The printed average of fine-tuned MEDITRON-7B (57.5) is not the mean of its row (57.8)."
    " The paper counts 1,862 questions in MMLU-Medical; the published files have 1,871",
    (
        _column("MMLU-Medical", "mmlu_medical", 1871, 1862),
        _column("PubMedQA", "pubmedqa", 500),
        _column("MedMCQA", "medmcqa", 4183),
        _column("MedQA", "medqa", 1273),
        _column("MedQA-4-option", "medqa_4options", 1273),
    ),
    {
        "meditron": (3, 5),
        "meditron_chat": (0,),
        "meditron_chat_cot": (0,),
        "meditron_chat_sc_cot": (0,),
    },
    {
        "few-shot MPT-7B": (23.5, 43.9, 32.1, 22.5, 27.6, 29.9),
        "few-shot Falcon-7B": (26.1, 52.8, 27.3, 19.6, 25.3, 30.2),
        "few-shot Llama-2-7B": (41.4, 49.1, 37.9, 29.1, 35.4, 38.6),
        "few-shot PMC-Llama-7B": (26.2, 57.0, 27.4, 21.6, 27.8, 32.0),
        "few-shot MEDITRON-7B": (42.3, 69.3, 36.3, 28.7, 37.4, 42.8),
        "few-shot Llama-2-70B": (71.3, 72.8, 52.4, 49.0, 58.4, 60.8),
        "few-shot MEDITRON-70B": (71.5, 79.8, 53.3, 52.0, 59.8, 63.3),
        "Mistral-7B*, top token": (55.8, 17.8, 40.2, 32.4, 41.1, 37.5),
        "Zephyr-7B-beta*, top token": (63.3, 46.0, 43.0, 42.8, 48.5, 48.7),
        "fine-tuned PMC-Llama-7B, top token": (59.7, 59.2, 57.6, 42.4, 49.2, 53.6),
        "fine-tuned Llama-2-7B, top token": (56.3, 61.8, 54.4, 44.0, 49.6, 53.2),
        "fine-tuned MEDITRON-7B, top token": (55.6, 74.4, 59.2, 47.9, 52.0, 57.5),
        "Clinical-Camel-70B*, top token": (65.7, 67.0, 46.7, 50.8, 56.8, 57.4),
        "Med42-70B*, top token": (74.5, 61.2, 59.2, 59.1, 63.9, 63.6),
        "fine-tuned Llama-2-70B, top token": (74.7, 78.0, 62.7, 59.2, 61.3, 67.2),
        "fine-tuned MEDITRON-70B, top token": (73.6, 80.0, 65.1, 60.7, 65.4, 69.0),
        "fine-tuned Llama-2-70B, chain of thought": (76.7, 79.8, 62.1, 60.8, 63.9, 68.7),
        "fine-tuned MEDITRON-70B, chain of thought": (74.9, 81.0, 63.2, 61.5, 67.8, 69.7),
        "fine-tuned Llama-2-70B, self-consistency": (77.9, 80.0, 62.6, 61.5, 63.8, 69.2),
        "fine-tuned MEDITRON-70B, self-consistency": (77.6, 81.6, 66.0, 64.4, 70.2, 72.0),
    },
)

_MMEDBENCH_SOURCE = (
    "Qiu et al. 2024, Nature Communications 15:8384, arXiv 2402.13963, README of"
    " MAGIC-AI4Med/MMedLM"
)
_MMEDBENCH_COLUMNS = (
    _column("English", "mmedbench_english", 1273),
    _column("Chinese", "mmedbench_chinese", 3426),
    _column("Japanese", "mmedbench_japanese", 199),
    _column("French", "mmedbench_french", 622),
    _column("Russian", "mmedbench_russian", 256),
    _column("Spanish", "mmedbench_spanish", 2742),
)

MMEDBENCH = PublishedTable(
    "mmedbench",
    "As MMedBench reports it: accuracy (all right options and no other), %",
    f"{_MMEDBENCH_SOURCE}. GPT and Gemini zero-shot, all others fine-tuned on its training set. The"
    " printed averages of GPT-4 (74.27) and GPT-3.5 (51.47) are not the means of their rows (75.31,"
    " 51.45)",
    _MMEDBENCH_COLUMNS,
    {"mmedbench": (0,)},
    {
        "GPT-3.5": (56.88, 52.29, 34.63, 32.48, 66.36, 66.06, 51.47),
        "GPT-4": (78.00, 75.07, 72.91, 56.59, 83.62, 85.67, 74.27),
        "Gemini-1.0 pro": (53.73, 60.19, 44.22, 29.90, 73.44, 69.69, 55.20),
        "BLOOMZ (7B)": (43.28, 58.06, 32.66, 26.37, 62.89, 47.34, 45.10),
        "InternLM (7B)": (44.07, 64.62, 37.19, 24.92, 58.20, 44.97, 45.67),
        "Llama 2 (7B)": (43.36, 50.29, 25.13, 20.90, 66.80, 47.10, 42.26),
        "MedAlpaca (7B)": (46.74, 44.80, 29.64, 21.06, 59.38, 45.00, 41.11),
        "ChatDoctor (7B)": (43.52, 43.26, 25.63, 18.81, 62.50, 43.44, 39.53),
        "PMC-LLaMA (7B)": (47.53, 42.44, 24.12, 20.74, 62.11, 43.29, 40.04),
        "Mistral (7B)": (61.74, 71.10, 44.72, 48.71, 74.22, 63.86, 60.73),
        "MEDITRON (7B)": (55.46, 61.88, 40.20, 35.05, 67.58, 53.28, 52.24),
        "InternLM 2 (1.8B)": (38.49, 64.10, 32.16, 18.01, 53.91, 36.83, 40.58),
        "InternLM 2 (7B)": (57.27, 77.55, 47.74, 41.00, 68.36, 59.59, 58.59),
        "BioMistral (7B)": (57.82, 71.54, 37.19, 47.27, 69.92, 60.98, 57.45),
        "Llama 3 (8B)": (63.86, 78.23, 48.24, 50.80, 71.48, 64.15, 62.79),
        "MMedLM (7B)": (49.88, 70.49, 46.23, 36.66, 72.27, 54.52, 55.01),
        "MMedLM 2 (7B)": (61.74, 80.01, 61.81, 52.09, 80.47, 67.65, 67.30),
        "MMedLM 2 (1.8B)": (45.40, 66.78, 42.21, 25.56, 69.14, 43.40, 48.75),
        "MMed-Llama 3 (8B)": (66.06, 79.25, 61.81, 55.63, 75.39, 68.38, 67.75),
        "MMed-Llama 3.1 (70B)": (80.60, 87.71, 76.88, 73.47, 82.03, 82.35, 80.51),
    },
)

_RATIONALE_SOURCE = (
    f"{_MMEDBENCH_SOURCE}. All models fine-tuned on its training set; rationales that passed the"
    " human check. Mean of the rationales' scores, as the authors compute it. Of Llama 3 and"
    " MMed-Llama 3 only the averages are known (table 4 of the paper)"
)

MMEDBENCH_BLEU1 = PublishedTable(
    "mmedbench_bleu1",
    "As MMedBench reports it: BLEU-1 of rationales",
    _RATIONALE_SOURCE,
    _MMEDBENCH_COLUMNS,
    {"mmedbench_rationale": (0,)},
    {
        "BLOOMZ (7B)": (45.94, 48.37, 44.71, 44.47, 29.95, 45.91, 43.22),
        "InternLM (7B)": (46.53, 48.24, 44.89, 41.80, 27.87, 43.42, 42.12),
        "Llama 2 (7B)": (46.87, 46.62, 48.53, 44.43, 33.05, 45.96, 44.24),
        "MedAlpaca (7B)": (47.33, 45.72, 45.35, 43.78, 32.80, 45.99, 43.49),
        "ChatDoctor (7B)": (47.22, 44.66, 38.87, 44.64, 32.19, 45.68, 42.21),
        "PMC-LLaMA (7B)": (47.33, 45.87, 44.52, 43.80, 31.14, 46.30, 43.16),
        "Mistral (7B)": (47.16, 48.34, 48.80, 45.83, 34.52, 47.55, 45.37),
        "InternLM 2 (7B)": (49.48, 51.38, 50.64, 46.73, 32.93, 47.94, 46.52),
        "MMedLM (7B)": (47.37, 48.68, 48.95, 45.39, 33.24, 46.68, 45.05),
        "MMedLM 2 (7B)": (50.02, 51.39, 54.79, 49.04, 37.49, 50.14, 48.81),
        "Llama 3 (8B)": (None, None, None, None, None, None, 46.76),
        "MMed-Llama 3 (8B)": (None, None, None, None, None, None, 47.22),
    },
    "bleu1_mmedlm",
)

MMEDBENCH_ROUGE1 = PublishedTable(
    "mmedbench_rouge1",
    "As MMedBench reports it: ROUGE-1 of rationales",
    _RATIONALE_SOURCE,
    _MMEDBENCH_COLUMNS,
    {"mmedbench_rationale": (0,)},
    {
        "BLOOMZ (7B)": (40.51, 48.26, 48.61, 41.05, 21.50, 40.77, 40.12),
        "InternLM (7B)": (41.86, 48.64, 49.83, 37.95, 21.20, 38.59, 39.68),
        "Llama 2 (7B)": (41.39, 46.57, 51.21, 40.38, 23.24, 40.37, 40.53),
        "MedAlpaca (7B)": (42.31, 46.49, 49.12, 40.41, 23.15, 40.57, 40.34),
        "ChatDoctor (7B)": (41.97, 45.81, 47.95, 40.25, 23.37, 40.71, 40.01),
        "PMC-LLaMA (7B)": (42.87, 46.18, 48.44, 40.23, 22.28, 40.68, 40.12),
        "Mistral (7B)": (41.82, 47.91, 50.60, 40.88, 24.68, 41.41, 41.22),
        "InternLM 2 (7B)": (44.12, 51.58, 53.46, 42.00, 24.05, 41.96, 42.86),
        "MMedLM (7B)": (41.98, 49.28, 52.34, 41.41, 24.67, 41.35, 41.84),
        "MMedLM 2 (7B)": (44.77, 51.78, 57.10, 45.30, 28.18, 44.59, 45.29),
        "Llama 3 (8B)": (None, None, None, None, None, None, 42.84),
        "MMed-Llama 3 (8B)": (None, None, None, None, None, None, 43.29),
    },
    "rouge1_mmedlm",
)

MMEDLM_ENGLISH = PublishedTable(
    "mmedlm_english",
    "As MMedLM reports it on English benchmarks: accuracy, %",
    f"{_MMEDBENCH_SOURCE}, and table 3 of the paper. MMed-Llama 3 is fine-tuned with further"
    " English instructions (of PMC-LLaMA); rows of other models are partly taken from their papers,"
    " so that prompts and shots differ from row to row. The printed average of Mistral (62.97) is"
    " not the mean of its row (62.86). GPT-3.5's MedMCQA and PubMedQA are printed in this order;"
    " BioMistral has them the other way round",
    (
        _or_biomistral("MedQA", "medqa_4options", "MedQA", 1273),
        _or_biomistral("MedMCQA", "medmcqa", "MedMCQA", 4183),
        _or_biomistral("PubMedQA", "pubmedqa", "PubMedQA", 500),
        _mmlu("MMLU CK", "clinical_knowledge", 265),
        _mmlu("MMLU MG", "medical_genetics", 100),
        _mmlu("MMLU AN", "anatomy", 135),
        _mmlu("MMLU PM", "professional_medicine", 272),
        _mmlu("MMLU CB", "college_biology", 144),
        _mmlu("MMLU CM", "college_medicine", 173),
    ),
    {},
    {
        "GPT-3.5": (57.7, 72.7, 53.8, 74.7, 74.0, 65.9, 72.8, 72.9, 64.7, 67.69),
        "GPT-4": (85.8, 72.3, 70.0, 90.2, 94.0, 84.4, 94.5, 93.8, 83.2, 85.36),
        "Flan-PaLM (540B)": (67.6, 57.6, 79.0, 80.4, 75.0, 63.7, 83.8, 88.9, 76.3, 74.70),
        "Med-PaLM 2": (86.5, 72.3, 81.8, 88.7, 92.0, 84.4, 95.2, 95.8, 83.2, 86.66),
        "MedAlpaca (7B)": (41.7, 37.5, 72.8, 57.4, 69.0, 57.0, 67.3, 65.3, 54.3, 58.03),
        "PMC-LLaMA (13B)": (56.4, 56.0, 77.9, None, None, None, None, None, None, None),
        "MEDITRON (7B)": (57.2, 59.2, 74.4, 64.6, 59.9, 49.3, 55.4, 53.8, 44.8, 57.62),
        "Mistral (7B)": (50.8, 48.2, 75.4, 68.7, 71.0, 55.6, 68.4, 68.1, 59.5, 62.97),
        "Gemma (7B)": (47.2, 49.0, 76.2, 69.8, 70.0, 59.3, 66.2, 79.9, 60.1, 64.19),
        "BioMistral (7B)": (50.6, 48.1, 77.5, 59.9, 64.0, 56.5, 60.4, 59.0, 54.7, 58.97),
        "Llama 3 (8B)": (60.9, 50.7, 73.0, 72.1, 76.0, 63.0, 77.2, 79.9, 64.2, 68.56),
        "MMed-Llama 3 (8B)": (65.4, 63.5, 80.1, 71.3, 85.0, 69.6, 77.6, 74.3, 66.5, 72.59),
    },
)

BIOMISTRAL = PublishedTable(
    "biomistral",
    "As BioMistral reports it: accuracy, %",
    "Labrak et al. 2024, arXiv 2402.10373, README of BioMistral/BioMistral. After fine-tuning, 3"
    " shots, mean of three sets of few-shot examples; GPT-3.5 is not fine-tuned",
    (
        _mmlu("Clinical KG", "clinical_knowledge", 265),
        _mmlu("Medical Genetics", "medical_genetics", 100),
        _mmlu("Anatomy", "anatomy", 135),
        _mmlu("Pro Medicine", "professional_medicine", 272),
        _mmlu("College Biology", "college_biology", 144),
        _mmlu("College Medicine", "college_medicine", 173),
        _or_biomistral("MedQA", "medqa_4options", "MedQA", 1273),
        _or_biomistral("MedQA 5 opts", "medqa", "MedQA-5_options", 1273),
        _or_biomistral("PubMedQA", "pubmedqa", "PubMedQA", 500),
        _or_biomistral("MedMCQA", "medmcqa", "MedMCQA", 4183),
    ),
    {"biomistral": (3,)},
    {
        "BioMistral-7B": (59.9, 64.0, 56.5, 60.4, 59.0, 54.7, 50.6, 42.8, 77.5, 48.1, 57.3),
        "Mistral-7B-Instruct": (62.9, 57.0, 55.6, 59.4, 62.5, 57.2, 42.0, 40.9, 75.7, 46.1, 55.9),
        "BioMistral ensemble": (62.8, 62.7, 57.5, 63.5, 64.3, 55.7, 50.6, 43.6, 77.5, 48.8, 58.7),
        "BioMistral DARE": (62.3, 67.0, 55.8, 61.4, 66.9, 58.0, 51.1, 45.2, 77.7, 48.7, 59.4),
        "BioMistral TIES": (60.1, 65.0, 58.5, 60.5, 60.4, 56.5, 49.5, 43.2, 77.5, 48.1, 57.9),
        "BioMistral SLERP": (62.5, 64.7, 55.8, 62.7, 64.8, 56.3, 50.8, 44.3, 77.8, 48.6, 58.8),
        "MedAlpaca-7B": (53.1, 58.0, 54.1, 58.8, 58.1, 48.6, 40.1, 33.7, 73.6, 37.0, 51.5),
        "PMC-LLaMA-7B": (24.5, 27.7, 35.3, 17.4, 30.3, 23.3, 25.5, 20.2, 72.9, 26.6, 30.4),
        "MEDITRON-7B": (41.6, 50.3, 46.4, 27.9, 44.4, 30.8, 41.6, 28.1, 74.9, 41.3, 42.7),
        "BioMedGPT-LM-7B": (51.4, 52.0, 49.4, 53.3, 50.7, 49.1, 42.5, 33.9, 76.8, 37.6, 49.7),
        "GPT-3.5": (74.71, 74.00, 65.92, 72.79, 72.91, 64.73, 57.71, 50.82, 72.66, 53.79, 66.0),
    },
)

TABLES = (MEDITRON, MMEDBENCH, MMEDBENCH_BLEU1, MMEDBENCH_ROUGE1, MMEDLM_ENGLISH, BIOMISTRAL)
