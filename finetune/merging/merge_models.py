"""One merge of models by mergekit: its configuration checked first, its result checked last."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from evaluation.backends import model_folder
from galen import json_file, links, manifest, pretrained
from galen.atomic import atomic_folder
from galen.errors import DataError, UsageError, install, one_line


def check(configuration: dict[str, Any]) -> Any:
    """Return mergekit's configuration, checked: valid, models present, a common vocabulary.

    Raises:
        UsageError: mergekit is not installed, refuses the configuration, or a model is missing.
        DataError: a folder is no model, a slice names layers that it has not, layers that are
            merged are not as many, or the vocabularies differ and no tokenizer is named.
    """
    try:
        from mergekit.config import MergeConfiguration
        from mergekit.merge_methods.registry import registered_methods
    except ImportError:
        raise UsageError(f"merging needs mergekit: {install('merge')}") from None
    try:
        checked = MergeConfiguration.model_validate(configuration)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"mergekit refuses its configuration: {one_line(error)}") from None
    known = {
        method.spec.name: {parameter.name for parameter in method.spec.parameters}
        for method in registered_methods()
    }
    if checked.merge_method not in known:
        raise UsageError(
            f"mergekit.merge_method: {checked.merge_method!r} is none of {', '.join(sorted(known))}"
        )
    for key in _unaccepted(configuration, checked.model_dump(), known[checked.merge_method]):
        raise UsageError(
            f"mergekit{key}: {checked.merge_method} knows no such key and would go on without it"
        )
    from evaluation.backends.transformers_backend import quiet

    quiet()
    folders = _models(checked)
    for folder in folders:
        links.check_folder(model_folder.check_model(folder))
    _check_layers(checked)
    vocabularies = {folder: pretrained.load_tokenizer(folder).get_vocab() for folder in folders}
    if checked.tokenizer is None and checked.tokenizer_source is None:
        for folder in folders[1:]:
            if vocabularies[folder] != vocabularies[folders[0]]:
                raise DataError(
                    f"{folders[0]} and {folder} have different vocabularies, so that rows of their"
                    " embeddings do not belong together; say how to join them with"
                    " mergekit.tokenizer_source (base, union, or a model)"
                )
    return checked


def _unaccepted(
    actual: Any, accepted: Any, parameters: Collection[str], location: str = ""
) -> Iterator[str]:
    """Yield the keys that mergekit ignored, and parameters that its method does not have."""
    if isinstance(actual, dict) and isinstance(accepted, dict):
        for key, value in actual.items():
            if key not in (parameters if location.endswith(".parameters") else accepted):
                yield f"{location}.{key}"
            elif not location.endswith(".parameters"):
                yield from _unaccepted(value, accepted[key], parameters, f"{location}.{key}")
    elif isinstance(actual, list) and isinstance(accepted, list):
        for number, (one, other) in enumerate(zip(actual, accepted, strict=True)):
            yield from _unaccepted(one, other, parameters, f"{location}.{number}")


def _check_layers(configuration: Any) -> None:
    """Check that the models have the layers that are merged, and as many as each other.

    Raises:
        DataError: they have not.
    """
    counts = {folder: _layers(folder) for folder in _models(configuration)}
    for number, part in enumerate(configuration.slices or []):
        section = f"mergekit.slices.{number}"
        for source in part.sources:
            path, (first, end) = source.model.model.path, source.layer_range
            layers = counts[Path(path)]
            if layers is not None and not 0 <= first < end <= layers:
                raise DataError(
                    f"{section}: layer_range [{first}, {end}], but {path} has {layers} layers; give"
                    f" a range within [0, {layers}]"
                )
        ranges = [list(source.layer_range) for source in part.sources]
        if len({end - first for first, end in ranges}) > 1:
            raise DataError(
                f"{section}: each model must have the same number of layers, not"
                f" {' and '.join(map(str, ranges))}"
            )
    known = {folder: layers for folder, layers in counts.items() if layers is not None}
    if configuration.models is not None and len(set(known.values())) > 1:
        layer_counts = ", ".join(f"{folder} {layers}" for folder, layers in known.items())
        raise DataError(
            f"mergekit.models: the models have different numbers of layers ({layer_counts}); name"
            " layers of each in mergekit.slices"
        )


def _layers(folder: Path) -> int | None:
    """Return how many layers a model has, None where its configuration does not say."""
    layers = json_file.read_object(folder / "config.json").get("num_hidden_layers")
    return layers if isinstance(layers, int) else None


def _models(configuration: Any) -> list[Path]:
    """Return the folders of all models that a configuration names, the base first, then by name."""
    # mergekit gives them in any order
    references = sorted(
        configuration.referenced_models(), key=lambda reference: reference.model.path
    )
    base = [configuration.base_model] if configuration.base_model is not None else []
    paths = [reference.model.path for reference in (*base, *references)]
    return [Path(path) for path in dict.fromkeys(paths)]


def merge(
    configuration: Any, seed: int, config: dict[str, Any], output: Path, verify: bool = True
) -> None:
    """Merge, check that every weight is a number, and write the folder with its manifest.

    Args:
        configuration: mergekit's, as `check` returns it.
        seed: decides what methods draw at random.
        config: the recipe, for the manifest.
        output: folder of the merged model.
        verify: compare the models with the SHA-256 in their manifests.

    Raises:
        DataError: mergekit cannot merge these models, or the result is damaged.
    """
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from safetensors import SafetensorError

    hashes: dict[Path, str] = {}
    for folder in _models(configuration):
        hashes |= {
            folder / name: digest for name, digest in model_folder.hashes(folder, verify).items()
        }
    with atomic_folder(output) as temporary:
        options = MergeOptions(
            random_seed=seed,
            copy_tokenizer=True,
            write_model_card=False,
            quiet=True,
            low_cpu_memory=False,
            trust_remote_code=False,
        )
        try:
            run_merge(configuration, str(temporary), options)
        except (ValueError, RuntimeError, KeyError, TypeError, OSError, SafetensorError) as error:
            raise DataError(f"mergekit cannot merge these models: {one_line(error)}") from error
        counts = _check_weights(temporary)
        model_folder.check_model(temporary)
        inputs = [manifest.describe_file(path, digest) for path, digest in hashes.items()]
        written = sorted(path for path in temporary.iterdir() if path.is_file())
        manifest.write(
            temporary / manifest.NAME,
            stage="merge",
            inputs=inputs,
            config=config,
            outputs=written,
            counts=counts,
        )


def _check_weights(folder: Path) -> dict[str, int]:
    """Return how many tensors and weights a folder holds.

    Raises:
        DataError: a weight is not a number.
    """
    import torch
    from safetensors import safe_open

    tensors = weights = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
                tensor = file.get_tensor(name)
                if not torch.isfinite(tensor).all():
                    raise DataError(f"the merged weight {name} holds values that are not numbers")
                tensors += 1
                weights += tensor.numel()
    return {"tensors": tensors, "weights": weights}
