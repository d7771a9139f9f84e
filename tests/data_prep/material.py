"""Small MEDLINE files in the shape of real ones, record files, and readers of what comes out."""

import gzip
import json
from pathlib import Path

from data_prep import preprocess

FIXTURE = Path(__file__).parent / "fixtures" / "medline.xml"
TOPICS = ["Aorta", "Biopsy", "Cornea", "Dyspnea", "Edema", "Fibrosis", "Gout", "Hernia", "Itching", "Jaundice"]


def record_xml(pmid, title="A title.", abstract="An abstract.", mesh=(), language="eng"):
    headings = "".join(
        f'<MeshHeading><DescriptorName UI="D{n}" MajorTopicYN="{"Y" if major else "N"}">{name}</DescriptorName></MeshHeading>'
        for n, (name, major) in enumerate(mesh)
    )
    return (
        f'<PubmedArticle><MedlineCitation><PMID Version="1">{pmid}</PMID><Article><ArticleTitle>{title}</ArticleTitle>'
        f"<Abstract><AbstractText>{abstract}</AbstractText></Abstract><Language>{language}</Language></Article>"
        f"<MeshHeadingList>{headings}</MeshHeadingList></MedlineCitation></PubmedArticle>"
    )


def write_medline(path, records):
    data = ('<?xml version="1.0"?>\n<PubmedArticleSet>\n' + "\n".join(records) + "\n</PubmedArticleSet>\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def many_records(first, count):
    """Records with two MeSH topics each; neighbours in the list of topics occur together."""
    records = []
    for pmid in range(first, first + count):
        names = [TOPICS[pmid % 10], TOPICS[(pmid + 1) % 10], TOPICS[(pmid + 2 + pmid // 10 % 3) % 10]]
        mesh = [("Humans", True), (names[0], True), (names[1], False), (names[2], False)]
        records.append(record_xml(pmid, f"Report number {pmid}.", f"Findings of case {pmid} are told here at some length.", mesh))
    return records


def read_records(folder):
    """All records below a folder of .jsonl.gz files, in order."""
    return [
        json.loads(line) for path in sorted(Path(folder).rglob("*.jsonl.gz")) for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def write_lines(path, records):
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def run(tokenizer, inputs, prefix, *options):
    return preprocess.main(["--input", *inputs, "--output-prefix", str(prefix), "--tokenizer-model", str(tokenizer), *options])


def sequences(prefix):
    """All sequences of a token file and where documents begin, as Megatron-LM reads them."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(prefix))
    return [dataset[n].tolist() for n in range(len(dataset))], dataset.document_indices.tolist()
