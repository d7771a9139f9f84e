"""The messages that the troubleshooting page quotes are messages of the code."""

import ast
import re

import pytest

from tests.conftest import ROOT

ROOMS = ("galen", "data_prep", "megatron_ext", "checkpoints_convert", "evaluation", "finetune")
PAGE = ROOT / "docs" / "troubleshooting.md"
QUOTED = re.findall(r"^\| `([^`]+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def texts():
    """All strings of the code and the Makefile; a value in an f-string is an ellipsis."""
    found = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(
                            part.value if isinstance(part, ast.Constant) else "…"
                            for part in node.values
                        )
                    )
    return "\n".join(found)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_in_the_code(quoted, texts):
    pattern = ".*?".join(re.escape(part.strip()) for part in quoted.split("…"))
    assert re.search(pattern, texts)
