"""Documents that an earlier step's task of the same rank wrote."""

from collections.abc import Iterator

from datatrove.data import Document
from datatrove.io import DataFolderLike
from datatrove.pipeline.readers.jsonl import JsonlReader


class StageReader(JsonlReader):
    """Reads `<rank>.jsonl.gz` of a folder, or nothing when that task kept no document."""

    name = "stage"

    def __init__(self, folder: DataFolderLike) -> None:
        super().__init__(folder, add_file_path=False)

    def run(
        self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of this task, in order."""
        path = f"{rank:05d}.jsonl.gz"
        if self.data_folder.exists(path):
            yield from self.read_files_shard([path])
