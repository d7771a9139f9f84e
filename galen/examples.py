"""List the example recipes, or copy them into a folder.

    galen examples
    galen examples --copy recipes
    galen curate examples/corpora/pubmed_small.yaml output=corpus

A path that begins with `examples/` and does not exist in the current folder is that of an example,
so that the commands of the documentation run in any folder.
"""

import shutil
from pathlib import Path

from galen import cli, shipped
from galen.errors import OutputConflictError


def main(argv: list[str] | None = None) -> None:
    """List or copy the examples.

    Raises:
        OutputConflictError: the folder for the copy exists.
    """
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--copy", type=Path, metavar="DIR", help="new folder for a copy of all")
    arguments = parser.parse_args(argv)
    if arguments.copy is None:
        print("\n".join(map(str, shipped.recipes())))
        return
    if arguments.copy.exists():
        raise OutputConflictError(f"{arguments.copy} exists already; choose another folder")
    shutil.copytree(
        shipped.FOLDER, arguments.copy, ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    print(f"{len(shipped.recipes())} recipes in {arguments.copy}")
