"""The example recipes that are installed with the package."""

from pathlib import Path

_INSTALLED = Path(__file__).parent / "shipped_examples"  # made by setup.py
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "examples"
"""Folder of the recipes; of a checkout, its `examples/`."""


def resolve(path: str | Path) -> Path:
    """Return the file that a path names: itself, or the installed example of that path.

    A path that begins with `examples/` and does not exist in the current folder is that of an
    example, so that the commands of the documentation run in any folder.
    """
    asked = Path(path)
    if asked.exists() or asked.parts[:1] != ("examples",) or ".." in asked.parts:
        return asked
    example = FOLDER.joinpath(*asked.parts[1:])
    return example if example.exists() else asked


def recipes() -> list[Path]:
    """Return the example recipes, as paths that `resolve` takes."""
    relative = (path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))
    return sorted(Path("examples") / path for path in relative)
