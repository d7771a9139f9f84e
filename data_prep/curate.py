r"""Raw medical sources to curated documents, split into train, validation and test.

    galen curate examples/corpora/pubmed_sample.yaml output=corpus \
        sources.0.path='medline/*.xml.gz' --workers 2

writes corpus/{train,validation,test}/*.jsonl.gz (records of text, id, metadata) and
corpus/manifest.json, which accounts for every record read. Killed and started again, it resumes
after the last finished input file. Keys of the recipe: data_prep/curation/recipe.py.
"""

import logging
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.curation.input_files import InputFile, describe, find_input_files, is_remote
from data_prep.curation.recipe import CorpusRecipe
from galen import cli, manifest
from galen.atomic import partial_path
from galen.errors import DataError, UsageError
from galen.progress import Progress
from galen.recipe import load, resume_may_change, to_dict
from galen.run_folder import RunFolder
from galen.run_identity import Identity, stat_record

if TYPE_CHECKING:
    from data_prep.curation.stages import Executors

logger = logging.getLogger(__name__)

_MAX_WARNINGS = 20
"""Lines of warnings in the summary: a file may have thousands of columns."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.recipe_parser(str(__doc__), CorpusRecipe)
    parser.add_argument(
        "--executor",
        choices=["local", "slurm", "ray"],
        default="local",
        help=(
            "where to run: processes on this machine (default), a Slurm job array, a Ray cluster"
            " (the output on a disk that all see)"
        ),
    )
    parser.add_argument(
        "--slurm-args",
        default="",
        metavar="ARGS",
        help="more options for sbatch, for example '--partition=cpu --time=4:00:00 --mem=8G'",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="tasks at a time [all cores: %(default)s]",
    )
    arguments = parser.parse_intermixed_args(argv)
    if arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: at least 1")
    if arguments.slurm_args and arguments.executor != "slurm":
        raise UsageError("--slurm-args is for --executor slurm")
    recipe = load(CorpusRecipe, arguments.recipe, arguments.overrides)
    curate(recipe, make_executors(arguments.executor, arguments.workers, arguments.slurm_args))
    return 0


def make_executors(name: str, workers: int, slurm_args: str = "") -> "Executors":
    """Return the function that makes executors, after a check that they can run here.

    Args:
        name: local, slurm or ray.
        workers: tasks at a time.
        slurm_args: more options for sbatch.

    Raises:
        UsageError: Slurm or Ray is not available.
    """
    from data_prep.executors.local import LocalExecutor

    if name == "slurm":
        from data_prep.executors.slurm import SlurmExecutor, check_slurm

        check_slurm()
        return lambda steps, tasks, folder: SlurmExecutor(
            steps, tasks, workers, folder, shlex.split(slurm_args)
        )
    if name == "ray":
        from data_prep.executors.ray import RayExecutor, check_ray

        check_ray()
        return lambda steps, tasks, folder: RayExecutor(steps, tasks, workers, folder)
    return lambda steps, tasks, folder: LocalExecutor(steps, tasks, workers, folder)


def curate(recipe: CorpusRecipe, executors: "Executors") -> None:
    """Build the corpus of a recipe, or print that it is complete.

    Args:
        recipe: of the corpus.
        executors: see `make_executors`.

    Raises:
        UsageError, DataError: a setting is wrong, or an input is missing or damaged.
    """
    from data_prep.curation.pipeline import check

    check(recipe)
    run = RunFolder(recipe.output, "curate")
    with run.lock():
        _curate(recipe, executors, run)


def _curate(recipe: CorpusRecipe, executors: "Executors", run: RunFolder) -> None:
    from data_prep.curation.pipeline import build
    from data_prep.executors.slurm import cancel_leftover_jobs

    start = time.monotonic()
    files = _input_files(recipe)
    stats = [stat_record(Path(file.path)) for file in files if not is_remote(file.path)]
    inputs = _describe_inputs(files)
    config = _config(recipe)
    existing = run.finished(Identity(config, inputs))
    if existing is not None:
        run.discard()  # killed after its last rename
        logger.info(f"{run.output} is already complete: {existing['counts']['kept']:,} documents")
        return
    cancel_leftover_jobs(run.partial)
    may_change = resume_may_change(CorpusRecipe)
    if run.resume(Identity(config, inputs, may_change)):
        logger.info(f"resuming {run.output}")
    counts = build(recipe, files, executors, run.partial)
    _check_unchanged(stats, inputs)
    corpus = run.partial / "corpus"
    manifest_path = corpus / manifest.NAME
    # of a run that was killed before it published
    for stale in (manifest_path, partial_path(manifest_path)):
        stale.unlink(missing_ok=True)
    licenses = {source.name or source.reader: source.license for source in recipe.sources}
    described = [
        record | {"source": file.source, "license": licenses[file.source]}
        for record, file in zip(inputs, files, strict=True)
    ]
    manifest.write(
        manifest_path,
        stage=run.stage,
        inputs=described,
        config=config,
        outputs=sorted(path for path in corpus.rglob("*") if path.is_file()),
        counts=counts,
    )
    run.publish(corpus)
    print(summary(counts, run.output, time.monotonic() - start))


def _input_files(recipe: CorpusRecipe) -> list[InputFile]:
    """Return the files of all sources, in order."""
    from data_prep.readers import READERS

    files = []
    for source in recipe.sources:
        name = source.name or source.reader
        for path, size in find_input_files(source.path, READERS[source.reader].endings):
            files.append(InputFile(source.reader, path, size, source.options, name))
    return files


def _describe_inputs(files: Sequence[InputFile]) -> list[dict[str, Any]]:
    """Return the records of the files for the manifest, with their hashes."""
    inputs = []
    with Progress("hash", total=sum(file.size for file in files), unit="B", scale=True) as progress:
        for file in files:
            inputs.append(describe(file.path))
            progress.update(file.size)
    return inputs


def _check_unchanged(stats: Sequence[dict[str, Any]], inputs: Sequence[dict[str, Any]]) -> None:
    """Check that local input files are still those that were hashed before they were read.

    A file is hashed again only if its size or time of change differs.

    Args:
        stats: records by size and time of change, taken before the files were hashed.
        inputs: records with the hashes.

    Raises:
        DataError: a file was changed or removed.
    """
    hashes = {record["path"]: record["sha256"] for record in inputs}
    for before in stats:
        path = Path(before["path"])
        if path.exists() and stat_record(path) == before:
            continue
        if not path.exists() or manifest.sha256(path) != hashes[before["path"]]:
            raise DataError(
                f"{path} was changed or removed while the corpus was being built; repeat the"
                " command, which starts from the beginning"
            )


def _config(recipe: CorpusRecipe) -> dict[str, Any]:
    """Return the configuration for the manifest.

    It is the recipe, with the hashes of the tokenizer and of the files that steps read.
    """
    from data_prep.curation.pipeline import files_of_steps
    from data_prep.tokenization.tokenizer import load_tokenizer

    config = to_dict(recipe)
    del config["output"]
    hashes = {str(path): manifest.sha256(path) for path in files_of_steps(recipe)}
    if recipe.tokenizer is not None:
        hashes[recipe.tokenizer] = load_tokenizer(recipe.tokenizer).fingerprint()
    if hashes:
        config["files"] = hashes
    return config


def summary(counts: dict[str, Any], output: Path, seconds: float) -> str:
    """Return a table of the records read, dropped by reason, and kept."""
    rows = [("records read", counts["read"])]
    rows += [(f"  dropped, {reason}", -count) for reason, count in counts["dropped"].items()]
    rows += [("documents kept", counts["kept"])]
    if counts["extra_repeats"]:
        rows += [("  further repeats", counts["extra_repeats"])]
    rows += [(f"  {name}", count) for name, count in counts["splits"].items()]
    width = max(len(label) for label, _ in rows) + 2
    lines = [f"{label:<{width}}{count:>12,}" for label, count in rows]
    if counts["quarantined"] or counts["broken_files"]:
        lines.append(
            f"in {output}/quarantine.jsonl: {counts['quarantined']:,} bad records and"
            f" {counts['broken_files']:,} broken files"
        )
    warnings = [f"warning: {count:,} {what}" for what, count in counts.get("warnings", {}).items()]
    lines += warnings[:_MAX_WARNINGS]
    if len(warnings) > _MAX_WARNINGS:
        more = len(warnings) - _MAX_WARNINGS
        lines.append(f"warning: {more:,} more, listed in {manifest.NAME} (counts.warnings)")
    lines.append(f"{counts['bytes'] / 1e6:.1f} MB of text in {output}, {seconds:.1f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
