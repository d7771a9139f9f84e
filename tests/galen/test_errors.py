"""What messages and pages say to install is there: extras of this project, from its folder."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = "galen data_prep megatron_ext checkpoints_convert finetune evaluation examples benchmarks"


def test_extras_are_installed_from_the_folder_and_never_by_name():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    paths = [path for room in ROOMS.split() for path in (ROOT / room).rglob("*.py")]
    named = set()
    for path in [*paths, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        text = path.read_text(encoding="utf-8")
        assert "pip install 'galen" not in text, path
        named |= set(re.findall(r"""\binstall\(["'](\w+)["']\)|'\.\[(\w+)\]'""", text))
    named = {extra for pair in named for extra in pair if extra}
    assert {"merge", "vllm", "wandb", "crawl"} <= named <= extras["optional-dependencies"].keys()
