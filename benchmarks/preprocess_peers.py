"""Programs that `preprocess.py` times and that have no command line of their own.

    python benchmarks/preprocess_peers.py datatrove|encode_batch|bare TOKENIZER WORKERS CORPUS

`encode_batch` and `bare` print their own speed in MB/s, without start-up.
"""

import json
import os
import subprocess
import sys
import time
from collections import deque
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from preprocess_corpus import texts_of

from data_prep.tokenization.encoders import choose_encoder
from data_prep.tokenization.tokenizer import load_tokenizer


def main(program: str, tokenizer: str, workers: str, corpus: str) -> None:
    """Run one of the programs."""
    if program == "datatrove":
        _datatrove(tokenizer, int(workers), Path(corpus))
        return
    texts = texts_of(Path(corpus))
    if program == "encode_batch":
        seconds = _encode_batch(tokenizer, int(workers), texts)
    else:
        seconds = _bare_encoder(tokenizer, int(workers), texts)
    print(f"speed {Path(corpus).stat().st_size / 1e6 / seconds:.2f}")


def _encode_batch(tokenizer: str, workers: int, texts: list[str]) -> float:
    """Return the seconds of Hugging Face tokenizers."""
    os.environ["RAYON_NUM_THREADS"] = str(workers)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    start = time.monotonic()
    for first in range(0, len(texts), 1000):
        encoder.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
    return time.monotonic() - start


def _bare_encoder(tokenizer: str, workers: int, texts: list[str]) -> float:
    """Return the seconds of Galen's encoder on several processes."""
    fast_encoder, _ = choose_encoder(load_tokenizer(tokenizer), texts[:100])
    context = get_context("fork")
    processes = [
        context.Process(target=_encode, args=(fast_encoder, texts[number::workers]))
        for number in range(workers)
    ]
    start = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.monotonic() - start


def _encode(encoder: Any, texts: list[str]) -> None:
    for first in range(0, len(texts), 1000):
        deque(encoder.encode(texts[first : first + 1000]), maxlen=0)


def _datatrove(tokenizer: str, workers: int, corpus: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import MegatronDocumentTokenizer

    shards = corpus.parent / f"out_{corpus.stem}_shards"
    shards.mkdir()
    split = ["split", "-n", f"l/{workers}", "--additional-suffix=.jsonl"]
    subprocess.run([*split, str(corpus), str(shards / "shard")], check=True)
    config = json.loads(Path(tokenizer, "tokenizer_config.json").read_text(encoding="utf-8"))
    eos = config["eos_token"]
    step = MegatronDocumentTokenizer(
        output_folder=str(corpus.parent / "out_datatrove"),
        tokenizer_name_or_path=f"{tokenizer}/tokenizer.json",
        eos_token=eos if isinstance(eos, str) else eos["content"],
        save_filename="shard",
    )
    executor = LocalPipelineExecutor(
        [JsonlReader(str(shards)), step],
        tasks=workers,
        workers=workers,
        logging_dir=str(corpus.parent / f"out_log_{corpus.stem}"),
    )
    executor.run()


def as_huggingface(tokenizer: Path, folder: Path) -> Path:
    """Return a Hugging Face folder of the tokenizer, for the programs that need one."""
    if tokenizer.is_dir():
        return tokenizer
    from gigatoken._load.sentencepiece import sentencepiece_to_tokenizer_json

    folder.mkdir()
    (folder / "tokenizer.json").write_text(
        sentencepiece_to_tokenizer_json(tokenizer.read_bytes()), encoding="utf-8"
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "bos_token": "<s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main(*sys.argv[1:])
