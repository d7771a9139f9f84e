"""Whether the script that runs can be imported again by its worker processes."""

import ast
import sys
from pathlib import Path

from galen.errors import UsageError


def check_main_guard() -> None:
    """Check, before worker processes start, that they can import the running script.

    Raises:
        UsageError: they cannot, or it would start its work again in each of them.
    """
    if getattr(sys.modules.get("__main__"), "__file__", None) == "<stdin>":
        raise UsageError(
            "worker processes cannot import a script that is read from standard input; save it as a"
            " file"
        )
    if (script := unguarded_script()) is not None:
        raise UsageError(
            f'{script} starts its work without `if __name__ == "__main__":`, so that each worker'
            " process would start it again; put what it does below such a line"
        )


def unguarded_script() -> str | None:
    """Return the running script's path if it has no `if __name__ == "__main__":` guard.

    Such a script starts its work at import.

    Worker processes that are not forked import the script; one without the guard then starts the
    work again and is ended by Python.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None or not Path(path).is_file():
        return None  # interactive, or started as a module
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    if any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(tree)):
        return None
    return str(path)
