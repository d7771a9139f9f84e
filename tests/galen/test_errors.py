"""What messages and pages say to install is there: extras of this project, from its folder."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from galen import errors

ROOT = Path(__file__).parents[2]
ROOMS = "galen data_prep megatron_ext checkpoints_convert finetune evaluation examples benchmarks"


def test_extras_are_installed_from_the_folder_and_never_by_name():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    paths = [path for room in ROOMS.split() for path in (ROOT / room).rglob("*.py")]
    named = set()
    for path in [*paths, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = path.read_text(encoding="utf-8")
        assert "pip install 'galen" not in text, path
        named |= set(re.findall(r"""\binstall\(["'](\w+)["']\)|'\.\[(\w+)\]'""", text))
    named = {extra for pair in named for extra in pair if extra}
    assert {"merge", "vllm", "wandb", "crawl"} <= named <= extras["optional-dependencies"].keys()


def test_of_an_installed_wheel_the_wheel_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "galen" / "errors.py"))
    installed = tmp_path / "galen-1.dist-info"
    installed.mkdir()
    (installed / "direct_url.json").write_text('{"url": "file:///my%20files/galen-1-any.whl"}')
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.PathDistribution(installed))
    assert errors.install("data") == "pip install '/my files/galen-1-any.whl[data]'"
    (installed / "direct_url.json").unlink()
    assert errors.install("data") == "pip install 'WHEEL[data]'"


def test_from_another_folder_the_checkout_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert errors.install("data") == f"pip install -e '{ROOT}[data]'"
