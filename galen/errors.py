"""Errors that a user can mend. Each carries one complete message; the command line prints it without a traceback."""


class GalenError(Exception):
    """Base of all errors that are the input's fault rather than the program's."""

    exit_code = 1


class UsageError(GalenError, ValueError):
    """The command line or a recipe asks for something impossible. Exit code 2."""

    exit_code = 2


class DataError(GalenError, ValueError):
    """A file is missing, damaged, empty, or does not fit another one. Exit code 1."""
