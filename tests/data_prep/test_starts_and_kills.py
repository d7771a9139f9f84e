"""Commands started several times at once, and killed again and again.

The bytes are those of one uninterrupted run.

Few times as a rule; GALEN_STARTS=8 GALEN_KILLS=30 runs the complete test.
"""

import gzip
import hashlib
import importlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from data_prep import curate, mesh_questions, preprocess
from galen import manifest, run_identity
from galen.errors import DataError, OutputConflictError
from tests.conftest import ROOT, command
from tests.data_prep.material import many_records, write_lines, write_medline
from tests.data_prep.server import Site

STARTS, KILLS = int(os.environ.get("GALEN_STARTS", "3")), int(os.environ.get("GALEN_KILLS", "2"))
HELD = r"is being written by {} \(process \d+ on .*\) since "
COMMANDS = ["curate", "preprocess", "merge_indexed", "mesh_questions", "download", "crawl"]


def start(arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment, start_new_session=True, **pipes
    )


def digests(folder):
    """Name -> SHA-256 of each file.

    For manifests and lists, without times and paths.
    """
    hashes = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.name.endswith("manifest.json"):
            known = json.loads(data)
            data = json.dumps(
                [
                    sorted((re.sub(".*/", "", o["path"]), o["sha256"]) for o in known["outputs"]),
                    known["counts"],
                ]
            ).encode()
        elif path.name == "downloads.jsonl":
            data = json.dumps(
                sorted({line["name"] for line in map(json.loads, data.splitlines())})
            ).encode()
        elif path.name.endswith(".warc.gz"):
            data = re.sub(
                rb"(?m)^(WARC-(Date|Record-ID)|Date|WARC-Filename): .*$", b"", gzip.decompress(data)
            )
            data = b"".join(sorted(set(re.findall(rb"WARC-Target-URI: [^\r]*", data))))
        hashes[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return hashes


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A corpus, a tokenizer, two token files and a server."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("material")
    for number in range(3):
        write_medline(folder / f"raw/{number}.xml", many_records(1 + 200 * number, 200))
    (folder / "recipe.yaml").write_text(
        f"output: {folder / 'corpus'}\nsources: [{{reader: medline, path: {folder / 'raw'}}}]\n"
    )
    curate.main(
        [
            str(folder / "recipe.yaml"),
            "split.train=0.6",
            "split.validation=0.1",
            "split.test=0.3",
            "--workers",
            "1",
        ]
    )
    tokenizer = Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_lines(folder / "lines.jsonl", [{"text": f"the word {n} " * 50} for n in range(5000)])
    for name in "ab":
        preprocess.main(preprocess_arguments(folder, folder / name))
    site, draw = Site(), random.Random(4)
    names = [f"pubmed26n{n:04d}.xml.gz" for n in range(1, 6)]
    site.files["/pubmed/baseline/"] = "".join(f'<a href="{name}">' for name in names).encode()
    for name in names:
        site.files[f"/pubmed/baseline/{name}"] = data = gzip.compress(draw.randbytes(400_000))
        site.files[f"/pubmed/baseline/{name}.md5"] = hashlib.md5(data).hexdigest().encode()
    site.files["/robots.txt"] = b""
    links = "".join(f'<a href="/topic/{n}">x</a>' for n in range(12))
    for path in ["/topic/", *(f"/topic/{n}" for n in range(12))]:
        text = "Asthma is treated. " * 30
        html = f"<html><title>{path}</title><body>{links}<p>{text}</p></body></html>"
        site.files[path] = html.encode()
        site.types[path] = "text/html"
    with site.running() as base:
        (folder / "site.yaml").write_text(
            f"name: s\noutput: x\nstart: ['{base}/topic/']\nallow: ['/topic/']\ndelay: 0.05\n"
        )
        yield folder, base


def preprocess_arguments(folder, prefix):
    options = [
        "--tokenizer-model",
        str(folder / "tokenizer.json"),
        "--encoder",
        "reference",
        "--workers",
        "2",
    ]
    return ["--input", str(folder / "lines.jsonl"), "--output-prefix", str(prefix), *options]


def arguments_of(name, material, output):
    folder, base = material
    script = f"data_prep/{name}.py"
    out = output / "out"
    return {
        "curate": [script, folder / "recipe.yaml", f"output={out}", "--workers", "2"],
        "preprocess": [script, *preprocess_arguments(folder, out)],
        "merge_indexed": [script, "--input", folder / "a", folder / "b", "--output-prefix", out],
        "mesh_questions": [
            script,
            "--corpus",
            folder / "corpus",
            "--split",
            "test",
            "--output",
            output / "out.jsonl",
        ],
        "download": [
            script,
            "medline-baseline",
            "--output",
            out,
            "--base-url",
            base,
            "--requests-per-second",
            "100",
            "--max-rate",
            "2",
        ],
        "crawl": [script, folder / "site.yaml", f"output={out}"],
    }[name]


def uninterrupted(name, material, folder):
    folder.mkdir()
    start_time = time.monotonic()
    process = start(arguments_of(name, material, folder))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    return digests(folder), time.monotonic() - start_time


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_one_of_simultaneous_starts_works(name, material, tmp_path):
    expected, _ = uninterrupted(name, material, tmp_path / "one")
    (tmp_path / "many").mkdir()
    processes = [start(arguments_of(name, material, tmp_path / "many")) for _ in range(STARTS)]
    ends = [(*process.communicate(timeout=600), process.returncode) for process in processes]
    worked = [
        out for out, err, code in ends if code == 0 and "is already complete" not in out + err
    ]
    for _, err, code in ends:
        assert "Traceback" not in err
        if code:
            assert code == 1
            assert re.search(HELD.format(rf"{name}\.py"), err), err
    if name not in ("download", "crawl"):  # they resume if another one has ended
        assert len(worked) == 1, ends
    assert digests(tmp_path / "many") == expected


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments(name, material, tmp_path):
    expected, seconds = uninterrupted(name, material, tmp_path / "one")
    draw, kills, rounds = random.Random(name), 0, 0
    while kills < KILLS:
        rounds += 1
        folder = tmp_path / f"killed{rounds}"
        folder.mkdir()
        process = None
        for _ in range(5):  # kills of one output; then it may come to its end
            fresh, start_time = not any(folder.iterdir()), time.monotonic()
            process = start(arguments_of(name, material, folder))
            try:
                process.wait(draw.uniform(0.3, 1.05) * seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.communicate()
            if fresh and process.returncode == 0:  # the machine was busier when it was measured
                seconds = min(seconds, time.monotonic() - start_time)
            if process.returncode == 0 or kills >= KILLS:
                break
        process = start(arguments_of(name, material, folder))
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        assert digests(folder) == expected


@pytest.mark.slow
def test_killed_between_manifest_and_name(tmp_path, capsys):
    """A restart lists no manifest, complete or half-written, but lists the quarantined records."""
    write_medline(tmp_path / "raw/a.xml", many_records(1, 100))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output: x\nsources: [{{reader: medline, path: {tmp_path / 'raw'}}}]\n")
    curate.main([str(recipe), f"output={tmp_path / 'one'}", "--workers", "1"])
    kill = (
        "import os, sys\nfrom data_prep import curate\nfrom galen.run_folder import RunFolder\n"
        "RunFolder.publish = lambda *_: os.kill(os.getpid(), 9)\ncurate.main(sys.argv[1:])\n"
    )
    command_line = [str(recipe), f"output={tmp_path / 'two'}", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", kill, *command_line], cwd=ROOT, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    partial = tmp_path / ".two.partial/corpus"
    assert (partial / "manifest.json").exists()
    (partial / ".manifest.json.partial").write_text("half")
    curate.main(command_line)
    one, two = (
        json.loads((tmp_path / name / "manifest.json").read_text())["outputs"]
        for name in ("one", "two")
    )
    assert one == two
    assert {record["path"] for record in two} == {
        str(path.relative_to(tmp_path / "two"))
        for path in (tmp_path / "two").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


KILLED_AFTER_RENAMING = """
import importlib, os, sys
from galen import manifest
if __name__ == "__main__":
    manifest.write = lambda *_, **__: os.kill(os.getpid(), 9)
    importlib.import_module(f"data_prep.{sys.argv[1]}").main(sys.argv[2:])
"""


KILLED_BEFORE_RENAMING = """
import os, sys
from data_prep import preprocess
from data_prep.tokenization.job import TokenJob
if __name__ == "__main__":
    TokenJob.publish = lambda *_: os.kill(os.getpid(), 9)
    preprocess.main(sys.argv[2:])
"""


def run_killed(name, arguments, code=KILLED_AFTER_RENAMING):
    command = [sys.executable, "-c", code, name, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("upgraded", [False, True])
@pytest.mark.parametrize("name", ["preprocess", "merge_indexed", "mesh_questions"])
def test_killed_between_name_and_manifest(name, material, tmp_path, monkeypatch, caplog, upgraded):
    """The same command completes the output, also with the next version of Galen.

    Preprocessing has a state: it is not mixed with another version's, and what to remove is named.
    """
    main = importlib.import_module(f"data_prep.{name}").main
    folders = [tmp_path / "undisturbed", tmp_path / "killed"]
    undisturbed_arguments, arguments = (
        [str(argument) for argument in arguments_of(name, material, folder)[1:]]
        for folder in folders
    )
    main(undisturbed_arguments)
    run_killed(name, arguments)
    published = [path for path in folders[1].iterdir() if not path.name.startswith(".")]
    assert published and not any(path.name.endswith("manifest.json") for path in published)
    if upgraded:
        monkeypatch.setattr(run_identity, "VERSION", "99.0")
    if upgraded and name == "preprocess":
        with pytest.raises(OutputConflictError, match=r"or remove (.*) to start from") as refused:
            main(arguments)
        named = re.search("or remove (.*) to start from", str(refused.value))[1].split(" and ")
        assert set(map(str, published)) < set(named)
        for path in named:
            pathlib.Path(path).unlink()
    main(arguments)
    assert not caplog.records
    assert digests(folders[1]) == digests(folders[0])


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "difference"),
    [("touched", "input 1.jsonl: changed"), ("reordered", "the order or number of input files")],
)
def test_inputs_changed_between_kill_and_restart(material, tmp_path, caplog, change, difference):
    """Preprocessing starts over with a warning; a file that has its final name is not replaced."""
    names = ["1.jsonl", "2.jsonl"]
    for name in names:
        write_lines(tmp_path / name, [{"text": f"the {name} {n}"} for n in range(50)])

    def arguments(output, inputs=names):
        _, _, *others = preprocess_arguments(material[0], tmp_path / output)
        return ["--input", *(str(tmp_path / name) for name in inputs), *others]

    run_killed("preprocess", arguments("a"), KILLED_BEFORE_RENAMING)
    run_killed("preprocess", arguments("b"))
    if change == "touched":
        os.utime(tmp_path / "1.jsonl", (1, 1))
    else:
        names.reverse()
    message = rf"b_text_document\.bin belongs to another run \({difference}\); remove it or"
    with pytest.raises(OutputConflictError, match=message):
        preprocess.main(arguments("b", names))
    assert not caplog.records
    preprocess.main(arguments("a", names))
    assert len(caplog.messages) == 1
    assert f"it differs ({difference})" in caplog.messages[0]
    preprocess.main(arguments("undisturbed", names))
    for ending in ("bin", "idx"):
        expected = (tmp_path / f"undisturbed_text_document.{ending}").read_bytes()
        assert (tmp_path / f"a_text_document.{ending}").read_bytes() == expected


def test_a_merge_never_replaces_what_it_did_not_write(material, tmp_path):
    from data_prep import merge_indexed

    folder, _ = material
    (tmp_path / "out_text_document.bin").write_bytes(b"precious")
    with pytest.raises(
        DataError, match=r"out_text_document\.bin exists already and was not made by this command"
    ):
        merge_indexed.main(
            [
                "--input",
                str(folder / "a"),
                str(folder / "b"),
                "--output-prefix",
                str(tmp_path / "out"),
            ]
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "out_text_document.bin": b"precious"
    }


@pytest.mark.parametrize(
    "mesh",
    [
        None,
        [],
        "Asthma",
        ["Asthma"],
        [{"name": "Asthma"}],
        [{"name": None, "major": True}],
        {"name": "x"},
    ],
)
def test_a_corpus_without_mesh_headings_is_a_data_error(tmp_path, mesh):
    corpus = tmp_path / "corpus"
    metadata = {} if mesh is None else {"mesh": mesh, "pmid": "1"}
    for split in ("train", "test"):
        (corpus / split).mkdir(parents=True)
        line = json.dumps({"text": "a text", "id": "1", "metadata": metadata})
        (corpus / split / "00000.jsonl.gz").write_bytes(gzip.compress(f"{line}\n".encode() * 5))
    counts = {"splits": {"train": 5, "test": 5}}
    manifest.write(
        corpus / "manifest.json", stage="curate", inputs=[], config={}, outputs=[], counts=counts
    )
    with pytest.raises(
        DataError, match=r"no record of the train split of .* has enough MeSH headings"
    ):
        mesh_questions.main(
            ["--corpus", str(corpus), "--split", "test", "--output", str(tmp_path / "q.jsonl")]
        )
    (corpus / "train/00000.jsonl.gz").write_bytes(b"\x1f\x8bdamaged")
    with pytest.raises(DataError, match=r"00000\.jsonl\.gz is damaged"):
        mesh_questions.main(
            ["--corpus", str(corpus), "--split", "test", "--output", str(tmp_path / "q.jsonl")]
        )
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
