"""Adds the example recipes to the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExamples(build_py):
    """Copies `examples/` to `galen/shipped_examples`, where `galen.shipped` finds it."""

    def run(self) -> None:
        """Copy the packages, and the examples."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "galen" / "shipped_examples"
            ignored = shutil.ignore_patterns("*.py", "__pycache__")
            shutil.copytree("examples", target, ignore=ignored, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithExamples})
