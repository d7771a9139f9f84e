"""A step that meets a user's mistake, in a module that workers can import."""

from pathlib import Path

from galen.errors import DataError


class BrokenStep:
    """Stands in a pipeline for one that finds a bad file."""

    name, type, stats = "broken", "TEST", None

    def __call__(self, data, rank=0, world_size=1):
        raise DataError(f"task {rank} met a bad file")


class FullDisk(BrokenStep):
    """Stands for one that writes to a full disk."""

    def __call__(self, data, rank=0, world_size=1):
        Path("/dev/full").write_text("x")
