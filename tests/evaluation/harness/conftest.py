"""Small files of the data sets that tasks of lm-evaluation-harness read, with their columns."""

import json

import pytest

WORDS = [
    "heart",
    "liver",
    "aspirin",
    "sodium",
    "the",
    "of",
    "in",
    "adults",
    "fever",
    "dose",
    "kidney",
    "rats",
    "12",
    "mg",
    "weeks",
    "risk",
    "stroke",
    "lowered",
]
MMLU = [
    "anatomy",
    "clinical_knowledge",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
    "college_biology",
]


def phrase(seed, count):
    """Return words that a seed decides, so that records differ in length."""
    return " ".join(WORDS[(seed * 7 + n * (seed % 5 + 1)) % len(WORDS)] for n in range(count))


def options(seed):
    return [phrase(seed + n, 1 + (seed + n) % 4) for n in range(4)]


def pubmedqa(n):
    contexts = [phrase(n, 9), phrase(n + 3, 12)]
    return {
        "QUESTION": f"{phrase(n, 5)}?",
        "CONTEXTS": contexts,
        "final_decision": ("yes", "no", "maybe")[n % 3],
    }


def medmcqa(n):
    record = dict(zip(("opa", "opb", "opc", "opd"), options(n), strict=True))
    return record | {"id": f"m{n}", "question": f"{phrase(n, 4 + n % 6)}?", "cop": n % 4}


def medqa(n):
    record = {f"ending{number}": option for number, option in enumerate(options(n))}
    return record | {"id": str(n), "sent1": phrase(n, 9), "sent2": "", "label": n % 4}


def mmlu(n):
    question = f"{phrase(n, 3 + n % 7)}?"
    return {"question": question, "subject": "s", "choices": options(n), "answer": n % 4}


def arc(n):
    choices = {"text": options(n), "label": list("ABCD")}
    question = f"{phrase(n, 5 + n % 7)}?"
    return {"id": f"a{n}", "question": question, "choices": choices, "answerKey": "ABCD"[n % 4]}


def headqa(n):
    answers = [{"aid": place, "atext": text} for place, text in enumerate(options(n), start=1)]
    return {"qid": n, "qtext": f"{phrase(n, 6)}?", "ra": 1 + n % 4, "answers": answers}


def gsm8k(n):
    reasoning = f"{phrase(n, 4)}\n{n} + 2 = <<{n}+2={n + 2}>>{n + 2}\n#### {n + 2}"
    return {"question": f"{phrase(n, 6)} {n}?", "answer": reasoning}


def wikitext(n):
    return {"page": f" = {phrase(n, 2)} = \n\n {phrase(n, 20 + 60 * (n % 3))} . \n"}


def lambada(n):
    return {"text": f"{phrase(n, 12)}"}


def winogrande(n):
    sentence = f"{phrase(n, 4)} _ {phrase(n + 5, 3)}"
    return {"sentence": sentence, "option1": "heart", "option2": "liver", "answer": str(1 + n % 2)}


def cola(n):
    return {"sentence": phrase(n, 5), "label": n % 2, "idx": n}


def nq_open(n):
    return {"question": phrase(n, 6), "answer": options(n)[: 1 + n % 3]}


SETS = {
    "bigbio/pubmed_qa/pubmed_qa_labeled_fold0_source": (pubmedqa, "train", "validation", "test"),
    "openlifescienceai/medmcqa": (medmcqa, "train", "validation"),
    "GBaker/MedQA-USMLE-4-options-hf": (medqa, "train", "validation", "test"),
    "allenai/ai2_arc/ARC-Easy": (arc, "train", "validation", "test"),
    "EleutherAI/headqa/en": (headqa, "train", "validation", "test"),
    "openai/gsm8k/main": (gsm8k, "train", "test"),
    "EleutherAI/wikitext_document_level/wikitext-2-raw-v1": (
        wikitext,
        "train",
        "validation",
        "test",
    ),
    "EleutherAI/lambada_openai/default": (lambada, "test"),
    "allenai/winogrande/winogrande_xl": (winogrande, "train", "validation"),
    "nyu-mll/glue/cola": (cola, "train", "validation"),
    "google-research-datasets/nq_open": (nq_open, "train", "validation"),
    **{f"cais/mmlu/{subject}": (mmlu, "dev", "test") for subject in MMLU},
}
"""Folder of a data set and its configuration to its records and splits."""


def write_sets(folder, count):
    """Write `count` records of each split of all data sets."""
    for number, (path, (record, *splits)) in enumerate(SETS.items()):
        (folder / path).mkdir(parents=True)
        for place, split in enumerate(splits):
            start = 100 * place + number
            rows = [json.dumps(record(n)) for n in range(start, start + count)]
            (folder / path / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def harness_data(tmp_path_factory):
    """A folder of data sets, six records a split."""
    return write_sets(tmp_path_factory.mktemp("harness"), 6)


@pytest.fixture(scope="session")
def long_llama(make_llama):
    """A model that reads 640 tokens, far enough from uniform predictions."""
    return make_llama(num_hidden_layers=2, max_position_embeddings=640, initializer_range=0.15)
