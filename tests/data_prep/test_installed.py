"""The package as a user installs it: a wheel, in an environment of its own."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

LIBRARIES = "import sys\nfor name in ('torch', 'megatron'):\n    sys.modules[name] = None\n"


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, files):
        if not name.startswith("tests/") and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, source)
    return next(folder.glob("galen-*.whl"))


def data_stages(galen, folder, environment, medline, tokenizer):
    """Curate and tokenize in a folder that is not the checkout; check what comes out."""

    def verb(*words):
        return run(*galen, *words, cwd=folder, env=environment)

    recipe = "examples/corpora/pubmed_sample.yaml"
    assert recipe in verb("examples").splitlines()
    settings = (f"sources.0.path={medline}", "output=corpus")
    verb("curate", recipe, *settings)
    assert (folder / "corpus" / "manifest.json").is_file()
    options = ("--output-prefix", "tokens/p", "--tokenizer-model", tokenizer, "--append-eod")
    verb("preprocess", "--input", "corpus/train/*.jsonl.gz", *options)
    checked = verb("inspect-tokens", "tokens/p_text_document", "--check")
    assert "p_text_document.bin has the SHA-256 of its manifest" in checked


def test_the_wheel_has_recipes_tasks_and_templates(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ("galen", "data_prep", "checkpoints_convert", "megatron_ext", "evaluation"):
        assert f"{room}/py.typed" in names
    for path in (*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("examples/**/*.json")):
        assert f"galen/shipped_examples/{path.relative_to(ROOT / 'examples')}" in names
    rooms = ("galen", "data_prep", "megatron_ext", "checkpoints_convert", "evaluation", "finetune")
    for room in rooms:
        for path in (ROOT / room).rglob("*"):
            if path.suffix in (".yaml", ".j2", ".jinja", ".txt", ".jsonl", ".css"):
                assert str(path.relative_to(ROOT)) in names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)


@pytest.mark.slow
def test_data_stages_of_an_installed_wheel_need_no_torch(
    tmp_path,
    wheel,
    medline_folder,
    tokenizer_folder,
):
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    # the libraries of this environment, but for torch and Megatron, and not the checkout
    (installed / "sitecustomize.py").write_text(LIBRARIES)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    installed_path = run(
        sys.executable, "-c", "import galen; print(galen.__file__)", cwd=tmp_path, env=environment
    )
    assert installed_path.strip() == str(installed / "galen" / "__init__.py")
    galen = (sys.executable, "-m", "galen")
    data_stages(galen, tmp_path, environment, medline_folder, tokenizer_folder)


@pytest.mark.slow
def test_data_stages_in_a_fresh_environment(
    tmp_path,
    wheel,
    medline_folder,
    tokenizer_folder,
):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = (python, "-m", "pip", "install", "--quiet", f"{wheel}[data]")
    done = subprocess.run(install, capture_output=True, text=True, env=environment)
    if "Could not find a version" in done.stderr or "Failed to establish" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    packages = run(python, "-m", "pip", "list", env=environment).lower().split()
    assert "galen" in packages
    assert "torch" not in packages
    galen = tmp_path / "venv" / "bin" / "galen"
    data_stages((galen,), tmp_path, environment, medline_folder, tokenizer_folder)
