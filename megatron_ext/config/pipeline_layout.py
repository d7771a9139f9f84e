"""Division of a model's layers among pipeline stages and their model chunks; no torch here."""

import re

from megatron_ext.config.sections import Parallel

_KEY = "parallel.pipeline_model_parallel_layout"
_SYMBOLS = "EtL"
"""Embedding, transformer layer, and output layer with the loss."""
_MAX_REPEAT = 1000
_MAX_LENGTH = 100_000
_REPEATS = (r"\(([^)]+)\)\*(\d+)", r"(.)\*(\d+)")
"""Of a part in parentheses, and of one symbol; replaced in this order."""


def parse(layout: str) -> list[str]:
    """Return the symbols of each model chunk, in the order of a forward pass.

    The syntax is Megatron Core's: E, t and L, `|` between chunks, `*` and a number to repeat a
    symbol or a part in parentheses. Commas are ignored.

    Raises:
        ValueError: a symbol is unknown, or a repeat is not followed by a reasonable number.
    """
    text = layout.replace(",", "")
    _check_length(text)
    for pattern in _REPEATS:
        if any(len(number) > 4 or int(number) > _MAX_REPEAT for number in _numbers(text)):
            raise ValueError(f"{_KEY}: repeats are limited to {_MAX_REPEAT}")
        text = re.sub(pattern, lambda match: match[1] * int(match[2]), text)
        _check_length(text)
    unknown = sorted(set(text) - set(_SYMBOLS) - {"|"})
    if unknown:
        raise ValueError(
            f"{_KEY}: {unknown[0]!r} is unknown; use E (embedding), t (layer), L (loss), | between"
            " model chunks, and repeats such as t*2 or (t*2|)*3"
        )
    return text.split("|")


def _check_length(text: str) -> None:
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"{_KEY} describes more layers than any model has")


def _numbers(text: str) -> list[str]:
    return re.findall(r"\*(\d+)", text)


def check(parallel: Parallel) -> None:
    """Check a layout against the other keys of the pipeline.

    Raises:
        ValueError: names the key, and one that fits.
    """
    if parallel.pipeline_model_parallel_layout is None:
        return
    stages = parallel.pipeline_model_parallel_size
    if stages == 1:
        raise ValueError(f"{_KEY} needs parallel.pipeline_model_parallel_size of at least 2")
    for name in ("num_layers_in_first_pipeline_stage", "num_layers_in_last_pipeline_stage"):
        if getattr(parallel, name) is not None:
            raise ValueError(
                f"{_KEY} is incompatible with parallel.{name}; set one of them to null"
            )
    chunks = parse(parallel.pipeline_model_parallel_layout)
    if len(chunks) % stages:
        raise ValueError(
            f"{_KEY} has {len(chunks)} model chunks, which must be a multiple of"
            f" parallel.pipeline_model_parallel_size = {stages}"
        )
    virtual = parallel.virtual_pipeline_model_parallel_size
    if len(chunks) // stages != (virtual or 1):
        fitting = len(chunks) // stages if len(chunks) > stages else "null"
        raise ValueError(
            f"{_KEY} has {len(chunks)} model chunks for {stages} stages; set"
            f" parallel.virtual_pipeline_model_parallel_size to {fitting}"
        )
    if "" in chunks:  # nothing to load or to update
        raise ValueError(
            f"{_KEY}: model chunk {chunks.index('')} (the first is 0) is empty; give each a layer"
            " (t), the embedding (E) or the loss (L)"
        )
    _check_ends("".join(chunks), chunks)


def _check_ends(symbols: str, chunks: list[str]) -> None:
    """Check that the embedding comes first and the loss last."""
    misplaced = not chunks[0].startswith("E") or not chunks[-1].endswith("L")
    if misplaced or symbols.count("E") > 1 or symbols.count("L") > 1:
        raise ValueError(
            f"{_KEY} must begin with E (embedding) and end with L (loss), and have each once"
        )


def chunk_layers(parallel: Parallel, layers: int) -> list[list[int]]:
    """Return the number of layers of each model chunk, by pipeline stage.

    Args:
        parallel: a layout that was checked for a model of so many layers.
        layers: of the model.
    """
    stages = parallel.pipeline_model_parallel_size
    if parallel.pipeline_model_parallel_layout is not None:
        numbers = [chunk.count("t") for chunk in parse(parallel.pipeline_model_parallel_layout)]
        return [numbers[stage::stages] for stage in range(stages)]
    chunks = parallel.virtual_pipeline_model_parallel_size or 1
    return [[number // chunks] * chunks for number in _without_layout(parallel, layers)]


def stage_layers(parallel: Parallel, layers: int) -> list[int]:
    """Return the number of layers of each pipeline stage; arguments as for `chunk_layers`."""
    if parallel.pipeline_model_parallel_layout is None:
        return _without_layout(parallel, layers)
    return [sum(numbers) for numbers in chunk_layers(parallel, layers)]


def _without_layout(parallel: Parallel, layers: int) -> list[int]:
    """Return the layers of each stage: equal, but for those of the first and last that are set."""
    stages = parallel.pipeline_model_parallel_size
    first = parallel.num_layers_in_first_pipeline_stage
    last = parallel.num_layers_in_last_pipeline_stage
    set_by_recipe = [n for n in (first, last) if n is not None]
    even = (layers - sum(set_by_recipe)) // max(stages - len(set_by_recipe), 1)
    numbers = [even] * stages
    if last is not None:
        numbers[-1] = last
    if first is not None:
        numbers[0] = first
    return numbers
