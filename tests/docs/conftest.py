"""Fixtures of the tests of the documentation."""

import importlib.util

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def hook():
    """Return the module that generates the reference pages."""
    spec = importlib.util.spec_from_file_location(
        "reference", ROOT / "docs" / "_hooks" / "reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
