"""Tables as plain text."""

from collections.abc import Sequence


def lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line per row, with columns aligned on the left and two spaces between them.

    Args:
        rows: cells, all rows of the same length; the first row is the heading.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        aligned.append("  ".join(cells).rstrip())
    return aligned
