"""Damaged inputs of every format, through the real readers.

Nothing ends a run but a message to the user.

    GALEN_FUZZ=20000 python -m pytest tests/data_prep/test_fuzz.py --timeout 7200

tries so many inputs in all instead of a few hundred; GALEN_FUZZ_SEED chooses others,
GALEN_FUZZ_SAMPLES names a folder of further JATS articles. An input that fails is kept, its path
and seed are reported.
"""

import contextlib
import json
import os
import random
import re
import signal
import traceback
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from data_prep import describe, merge_indexed, readers
from data_prep.curation.input_files import InputFile
from data_prep.curation.registry import build_step
from data_prep.curation.source_reader import SourceFiles
from data_prep.curation.writers import RecordWriter
from data_prep.files.json_records import parse
from data_prep.steps.filters.abstract import AbstractSettings
from data_prep.steps.filters.animal_only import AnimalOnlySettings
from data_prep.steps.filters.copyright import CopyrightSettings
from data_prep.steps.filters.language import LanguageSettings
from data_prep.steps.filters.length import LengthSettings
from data_prep.steps.filters.license import LicenseSettings
from data_prep.steps.filters.pii import PiiSettings
from data_prep.steps.filters.publication_type import PublicationTypeSettings
from data_prep.steps.filters.quality import QualitySettings
from data_prep.steps.filters.retraction import RetractionSettings
from data_prep.steps.mixture.meditron_score import citations_per_year, type_and_age_score
from data_prep.tokenization.input_blocks import FileRange, LongLine, read_blocks
from galen.errors import GalenError
from tests.data_prep import fuzz_samples as samples

INPUTS = int(os.environ.get("GALEN_FUZZ", "400"))
SEED = int(os.environ.get("GALEN_FUZZ_SEED", "1"))
A_TASK = 20
READERS = (
    "medline",
    "jats",
    "tei",
    "s2orc",
    "guidelines",
    "records",
    "text",
    "html",
    "warc",
    "pdf",
)
STEPS = [
    *(
        PiiSettings(phones=True),
        AbstractSettings(required=False),
        RetractionSettings(),
        CopyrightSettings(),
        LicenseSettings(if_missing="keep"),
    ),
    *(
        AnimalOnlySettings(),
        PublicationTypeSettings(drop=["Letter"]),
        LengthSettings(min_words=0),
        QualitySettings(),
        LanguageSettings(),
    ),
]
# fmt: off
PIECES = [
    *(b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"<", b">", b"&", b'"'),
    *(b"'", b"]]>", b"<![CDATA[", b"--", b"<?x?>", b"%"),
    *(b"&#55296;", b"&amp;#99999999999;", b"&#x110000;", b"&nbsp;", b"&amp;#55296;"),
    *(b"\\ud800", b"\\u0000"),
    *(b"-1", b"0", b"1e999", b"NaN"),
    *(b"99999999999999999999", b"4294967296", b"null", b"true", b"[]", b"{}", b'""', b"[[[[[[[["),
    *(b"{{{{", b"\xc2\xb2", b"\xe2\x91\xa0"),
    *(b"<h\">", b"<p>", b"<math><semantics/></math>", b"<sup>2</sup>"),
    *(b"<a xmlns='urn:x'>", b"xml:lang='\xc3\xa9'", b"((((("),
    *(b"<b>" * 600, b"[" * 2000, b"9" * 5000, b"\xf0\x9f\x98\x80", b"\r\n\r\n"),
    *(b"WARC/1.0", b"Content-Length: -5", b"%PDF-1.7", b"endobj"),
]
VALUES = [
    *(None, True, -1, 0, 1.5, 10**30, float("nan"), "", "x", "\ud800", "\0", [], {}, [None], [[1]]),
    *({"a": None}, "9" * 50, ["x", 1]),
]
# fmt: on


def damaged(data, chance):
    """Return data with one to four changes."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        offset, other = chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)
        length = chance.choice((1, 2, 8, 40, 400))
        chunk = chance.choice(PIECES)
        data = chance.choice(
            (
                lambda data=data, offset=offset, chunk=chunk: data[:offset] + chunk + data[offset:],
                lambda data=data, offset=offset, chunk=chunk, length=length: (
                    data[:offset] + chunk + data[offset + length :]
                ),
                lambda data=data, offset=offset, length=length: (
                    data[:offset] + data[offset + length :]
                ),
                lambda data=data, offset=offset, other=other, length=length: (
                    data[:offset] + data[other : other + length] + data[offset:]
                ),
                lambda data=data, offset=offset: (
                    data[:offset]
                    + bytes(chance.randrange(256) for _ in range(4))
                    + data[offset + 4 :]
                ),
                lambda data=data, offset=offset: data[:offset],
                lambda data=data: _without_a_word(data, chance),
            )
        )()
    return data


def _without_a_word(data, chance):
    """Return data in which one word is replaced by another, or removed, once or everywhere."""
    words = re.findall(rb"[A-Za-z][A-Za-z-]+|\d+", data)
    if not words:
        return data
    new = chance.choice([*PIECES[:40], chance.choice(words)])
    return data.replace(chance.choice(words), new, chance.choice((-1, 1)))


def damaged_json(data, chance):
    """Return JSON lines with another value in some place."""
    records = [json.loads(line) for line in data.splitlines()]
    positions = [offset for record in records for offset in _positions(record)]
    for _ in range(chance.choice((1, 2, 3))):
        inside, key = chance.choice(positions)
        change = chance.randrange(4)
        if isinstance(inside, dict) and change == 0:
            inside.pop(key, None)
        elif isinstance(inside, dict) and change == 1:
            inside[chance.choice(["\ud800", "", "text", "meta", "repeats", "source"])] = (
                chance.choice(VALUES)
            )
        elif not isinstance(inside, list) or key < len(inside):
            inside[key] = chance.choice(VALUES)
    return samples.lines(*records)


def _positions(value):
    keys = (
        value.keys()
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for key in list(keys):
        yield value, key
        yield from _positions(value[key])


def write_input(folder, reader, kinds, number):
    """Write one damaged input; which, its number alone decides."""
    chance = random.Random(f"{SEED} {reader} {number}")
    ending, data = chance.choice(kinds)
    structured = ending == ".jsonl" and chance.random() < 0.5
    before = chance.random() < 0.8  # damage what is compressed, else the package
    if before:
        data = damaged_json(data, chance) if structured else damaged(data, chance)
    if reader == "jats" and chance.random() < 0.2:
        ending, data = ".tar", samples.tar(data)
    elif reader == "text" and chance.random() < 0.4:
        ending, data = ".zip", samples.zipped(data)
    compressible = {
        "jats": (".gz",),
        "tei": (".gz",),
        "medline": (".gz",),
        "html": (".gz",),
        "warc": (".gz",),
        "pdf": (),
    }
    compressions = compressible.get(reader, tuple(samples.PACKERS))
    if ending not in (".parquet", ".zip") and compressions and chance.random() < 0.3:
        compression = chance.choice(compressions)
        ending, data = ending + compression, samples.PACKERS[compression](data)
    path = folder / f"{number}{ending}"
    path.write_bytes(data if before else damaged(data, chance))
    return path


def through_curation(paths, reader, folder):
    """Read files as curate.py does and take the documents through steps and the writer.

    Return what was counted.
    """
    options = readers.READERS[reader].Options(max_record_seconds=5, max_record_memory=2**29)
    files = [InputFile(reader, str(path), path.stat().st_size, options) for path in paths]
    source = SourceFiles([files], str(folder / "log"), str(folder / "quarantine"))
    documents = source.run()
    actual = Counter()

    def counted(documents):
        for document in documents:
            actual["read"] += 1
            type_and_age_score(document.metadata, date(2026, 1, 1))
            citations_per_year(document.metadata, date(2026, 1, 1))
            yield document

    documents = counted(documents)
    for settings in STEPS:
        documents = build_step(settings).run(documents)
    for _ in RecordWriter(str(folder / "out")).run(documents):
        pass
    counts = Counter({label: int(stat.total) for label, stat in source.stats.stats.items()})
    dropped = sum(count for label, count in counts.items() if label.startswith("dropped_"))
    assert counts["total"] == actual["read"] + dropped, f"{counts}, but {actual['read']} documents"
    assert counts["input_files"] == len(paths)
    return counts


@pytest.mark.parametrize("reader", READERS)
def test_readers(reader, tmp_path):
    kinds = samples.inner_samples(tmp_path)[reader]
    count = max(INPUTS * 8 // 100, A_TASK)
    totals = Counter()
    for first in range(0, count, A_TASK):
        folder = tmp_path / str(first)
        folder.mkdir()
        paths = [
            write_input(folder, reader, kinds, number)
            for number in range(first, min(first + A_TASK, count))
        ]
        try:
            totals += through_curation(paths, reader, folder)
        except Exception:
            for path in paths:
                (folder / path.stem).mkdir()
                try:
                    through_curation([path], reader, folder / path.stem)
                except Exception:
                    pytest.fail(f"seed {SEED}, {path}:\n{traceback.format_exc()}")
            raise
    assert totals["input_files"] == count
    assert totals["total"] > 0


def alone(check, path):
    """Run a check in a process of its own, which a library may crash; return how that ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            check(path)
            code = 0
        except GalenError:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def blocks(paths):
    """Read what preprocess.py tokenises."""
    for path in paths:
        try:
            for block in read_blocks([FileRange(path)], 1 << 12, ["text"]):
                if block.data is not None and not isinstance(block.data, LongLine):
                    parse(block.data, ["text"])
        except GalenError:
            pass


def index(paths):
    """Describe, check and merge a token file."""
    for path in paths:
        prefix = str(path.with_suffix(""))
        for work in (
            lambda prefix=prefix: describe.main([prefix, "--check"]),
            lambda prefix=prefix: describe.main([prefix, "--documents", "0"]),
            lambda prefix=prefix: describe.compare(
                *(describe.IndexedFile(prefix) for _ in range(2))
            ),
            lambda prefix=prefix: merge_indexed.merge([prefix, prefix], f"{prefix}_merged"),
        ):
            with contextlib.suppress(GalenError):
                work()


def write_block_input(folder, number):
    chance = random.Random(f"{SEED} blocks {number}")
    records = [{"text": f"Text {n}.", "id": n} for n in range(20)]
    kinds = {
        ".jsonl": samples.lines(*records),
        ".parquet": samples.parquet(records),
        ".arrow": samples.arrow(records),
    }
    for compression in (".gz", ".bz2", ".zst"):
        kinds[f".jsonl{compression}"] = samples.PACKERS[compression](kinds[".jsonl"])
    ending = chance.choice(list(kinds))
    path = folder / f"{number}{ending}"
    path.write_bytes(damaged(kinds[ending], chance))
    return path


def write_index_input(folder, number):
    chance = random.Random(f"{SEED} index {number}")
    path = samples.token_file(folder, str(number)).with_suffix(
        chance.choice((".idx", ".idx", ".idx", ".bin"))
    )
    path.write_bytes(damaged(path.read_bytes(), chance))
    return path


@pytest.mark.parametrize(
    ("write", "check"), [(write_block_input, blocks), (write_index_input, index)]
)
def test_token_files(write, check, tmp_path, capfd):
    count = max(INPUTS // 10, A_TASK)
    for first in range(0, count, A_TASK):
        paths = [write(tmp_path, number) for number in range(first, min(first + A_TASK, count))]
        if alone(check, paths) != 0:
            for path in paths:
                code = alone(check, [path])
                assert code == 0, (
                    f"seed {SEED}, {path}: ended with {code}\n{capfd.readouterr().err[-3000:]}"
                )
        for path in Path(tmp_path).iterdir():
            path.unlink()
