"""Origins of options that come from a recipe, for error messages.

Code that checks an option names it by its flag, `--limit`. Where the value comes from a recipe, the
message names the key, the file and the line: `recipe.yaml, line 4: limit must be at least 1`.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping

from galen.errors import GalenError, UsageError

_FLAG = re.compile(r"--([a-z][a-z0-9-]*)")


@contextlib.contextmanager
def name_keys(origins: Mapping[str, str]) -> Iterator[None]:
    """Make errors that are raised in the block name keys of a recipe in place of flags.

    Args:
        origins: key to where its value comes from: "recipe.yaml, line 4", "override 'limit=0'".
    """
    try:
        yield
    except GalenError as error:
        message = str(error)
        text = with_keys(message, origins)
        if isinstance(error, UsageError):
            text = f"{_origin(message, origins)}{text}"
        error.args = (text,)
        raise


def with_keys(message: str, origins: Mapping[str, str]) -> str:
    """Return a message with the flags of the keys in `origins` replaced by the keys."""

    def key(flag: re.Match[str]) -> str:
        name = _key(flag)
        return name if name in origins else flag[0]

    return _FLAG.sub(key, message)


def _origin(message: str, origins: Mapping[str, str]) -> str:
    """Return where the value of the first flag in a message comes from; empty without a flag."""
    for flag in _FLAG.finditer(message):
        if _key(flag) in origins:
            return f"{origins[_key(flag)]}: "
    return ""


def _key(flag: re.Match[str]) -> str:
    return flag[1].replace("-", "_")
