import pytest

from data_prep import preprocess
from data_prep.files.find import listed
from data_prep.readers.medline import MedlineReader
from data_prep.tokenization.input_blocks import ENDINGS
from galen.errors import DataError


def test_endings_of_compressed_files_are_not_listed():
    assert listed(MedlineReader.endings) == ".xml or .xml.gz"
    assert listed(ENDINGS) == ".jsonl, .ndjson, .json, .parquet, .arrow (some also compressed)"


def test_a_folder_of_xml_is_to_be_curated_first(tmp_path):
    (tmp_path / "a.xml.gz").touch()
    with pytest.raises(DataError, match="it holds XML: run `galen curate` first"):
        preprocess.main(
            ["--input", str(tmp_path), "--output-prefix", "out", "--tokenizer-model", "missing"]
        )
