"""Names of models as names of files."""

from collections.abc import Collection

from galen.errors import UsageError

_SEPARATORS = str.maketrans({"/": ".", ":": "."})


def file_stem(name: str) -> str:
    """Return a model's name as the beginning of a file name."""
    return name.translate(_SEPARATORS)


def check_files(names: Collection[str], reserved: Collection[str] = ()) -> None:
    """Check that the files of models with these names differ, in any case of letters.

    Args:
        names: of the models.
        reserved: file names that have another use.

    Raises:
        UsageError: two models would have the same files, or one has a reserved name.
    """
    known: dict[str, str] = {}
    for name in names:
        stem = file_stem(name)
        if not stem.strip(".") or stem in reserved:
            raise UsageError(f"a model cannot be named {name!r}: no file of it can have that name")
        other = known.setdefault(stem.casefold(), name)
        if other != name:
            raise UsageError(
                f"models {other} and {name} would have the same files; give one another name"
            )
