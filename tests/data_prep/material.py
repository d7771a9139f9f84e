"""Small MEDLINE files in the shape of real ones, record files, and readers of what comes out."""

import gzip
import json
from pathlib import Path

from data_prep import preprocess

FIXTURE = Path(__file__).parent / "fixtures" / "medline.xml"
TOPICS = [
    "Aorta",
    "Biopsy",
    "Cornea",
    "Dyspnea",
    "Edema",
    "Fibrosis",
    "Gout",
    "Hernia",
    "Itching",
    "Jaundice",
]


def record_xml(pmid, title="A title.", abstract="An abstract.", mesh=(), language="eng"):
    headings = "".join(
        f'<MeshHeading><DescriptorName UI="D{n}"'
        f' MajorTopicYN="{"Y" if major else "N"}">{name}</DescriptorName></MeshHeading>'
        for n, (name, major) in enumerate(mesh)
    )
    return (
        "<PubmedArticle><MedlineCitation><PMID"
        f' Version="1">{pmid}</PMID><Article><ArticleTitle>{title}</ArticleTitle>'
        f"<Abstract><AbstractText>{abstract}</AbstractText></Abstract><Language>{language}</Language></Article>"
        f"<MeshHeadingList>{headings}</MeshHeadingList></MedlineCitation></PubmedArticle>"
    )


def write_medline(path, records):
    data = (
        '<?xml version="1.0"?>\n<PubmedArticleSet>\n'
        + "\n".join(records)
        + "\n</PubmedArticleSet>\n"
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def many_records(first, count):
    """Records with two MeSH topics each; neighbours in the list of topics occur together."""
    records = []
    for pmid in range(first, first + count):
        names = [
            TOPICS[pmid % 10],
            TOPICS[(pmid + 1) % 10],
            TOPICS[(pmid + 2 + pmid // 10 % 3) % 10],
        ]
        mesh = [("Humans", True), (names[0], True), (names[1], False), (names[2], False)]
        records.append(
            record_xml(
                pmid,
                f"Report number {pmid}.",
                f"Findings of case {pmid} are told here at some length.",
                mesh,
            )
        )
    return records


def read_records(folder):
    """All records below a folder of .jsonl.gz files, in order."""
    return [
        json.loads(line)
        for path in sorted(Path(folder).rglob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def read_raw(reader_class, path, **options):
    """Documents and bad records of a raw file, and what its reader counted."""
    reader = reader_class(str(path.parent), reader_class.Options(**options))
    bad = []
    reader.on_bad = bad.append
    documents = list(reader.read_file(path.name))
    return documents, bad, {key: stat.total for key, stat in reader.stats.stats.items()}


def write_lines(path, records):
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def run(tokenizer, inputs, prefix, *options):
    return preprocess.main(
        [
            "--input",
            *inputs,
            "--output-prefix",
            str(prefix),
            "--tokenizer-model",
            str(tokenizer),
            *options,
        ]
    )


def sequences(prefix):
    """All sequences of a token file and where documents begin, as Megatron-LM reads them."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(prefix))
    return [dataset[n].tolist() for n in range(len(dataset))], dataset.document_indices.tolist()


def pdf_bytes(pages):
    """A PDF file with these texts, in lines of 80 characters."""
    import textwrap

    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for text in pages:
        lines = " ".join(
            f"({line}) Tj T*" for line in textwrap.wrap(text, 80, break_on_hyphens=False)
        )
        stream = f"BT /F1 10 Tf 12 TL 50 750 Td {lines} ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R"
        f" >>\nstartxref\n{len(data)}\n%%EOF\n"
    )
    return data + end.encode()


def scanned_pdf(pages):
    """A PDF file whose pages are text or, for None, an image of a page with text."""
    import io

    import pypdfium2

    prose = (
        "Asthma is a long-term condition of the airways that makes breathing hard, and it can be"
        " treated well. " * 3
    )
    picture = pypdfium2.PdfDocument(pdf_bytes([prose]))[0].render(scale=2)
    file = pypdfium2.PdfDocument.new()
    for text in pages:
        if text is None:
            page = file.new_page(612, 792)
            image = pypdfium2.PdfImage.new(file)
            image.set_bitmap(picture)
            image.set_matrix(pypdfium2.PdfMatrix().scale(612, 792))
            page.insert_obj(image)
            page.gen_content()
        else:
            file.import_pages(pypdfium2.PdfDocument(pdf_bytes([text])))
    output = io.BytesIO()
    file.save(output)
    return output.getvalue()
