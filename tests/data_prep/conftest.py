import json

import pytest

from tests.data_prep.material import many_records, record_xml, write_medline


@pytest.fixture
def medline_folder(tmp_path):
    """Three files with 300 different records and one record that stands in two of them."""
    folder = tmp_path / "raw"
    write_medline(folder / "a.xml.gz", many_records(1, 120))
    write_medline(
        folder / "b.xml", [*many_records(500, 120), record_xml(3, "Report number 3, corrected.", "The corrected text of case three.")]
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
    tokenizer.train_from_iterator(["the patient was treated with the drug and the results are told here"] * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)])
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<eos>"}}))
    return folder
