"""The verbs of the `galen` command, by stage of the pipeline."""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from galen import log
from galen.errors import UsageError, did_you_mean, install


@dataclass(frozen=True)
class Verb:
    """One command, imported only when it runs."""

    module: str
    """Module with the command's `main`; the same as the script of that path."""
    summary: str
    """One line of `galen --help`."""


@dataclass(frozen=True)
class Stage:
    """Verbs that belong together."""

    title: str
    extra: str
    """Extra of the package that installs what the verbs need."""
    verbs: dict[str, Verb]


STAGES = (
    Stage(
        "Recipes",
        "data",
        {"examples": Verb("galen.examples", "list the example recipes, or copy them")},
    ),
    Stage(
        "Data",
        "data",
        {
            "download": Verb("data_prep.download", "download corpora and benchmarks"),
            "crawl": Verb("data_prep.crawl", "crawl a guideline website into web archives"),
            "curate": Verb("data_prep.curate", "turn raw sources into a curated corpus"),
            "report-corpus": Verb("data_prep.report", "write the HTML report of a corpus"),
            "preprocess": Verb("data_prep.preprocess", "tokenize documents for Megatron"),
            "merge-indexed": Verb("data_prep.merge_indexed", "join token files into one"),
            "split-indexed": Verb("data_prep.split_indexed", "split token files by length"),
            "inspect-tokens": Verb("data_prep.describe", "show, check or compare token files"),
            "mesh-questions": Verb("data_prep.mesh_questions", "make questions from a corpus"),
        },
    ),
    Stage(
        "Checkpoints",
        "convert",
        {
            "import": Verb("checkpoints_convert.hf_to_megatron", "Hugging Face to Megatron"),
            "export": Verb("checkpoints_convert.megatron_to_hf", "Megatron to Hugging Face"),
            "verify": Verb("checkpoints_convert.verify", "compare the logits of two checkpoints"),
            "inspect-checkpoint": Verb(
                "checkpoints_convert.describe", "show family, sizes and layout of a checkpoint"
            ),
            "register": Verb(
                "checkpoints_convert.register_checkpoint",
                "use a checkpoint of Megatron-LM in place",
            ),
            "reshard": Verb(
                "checkpoints_convert.reshard", "make the optimizer state loadable by any layout"
            ),
            "average": Verb("checkpoints_convert.average", "average checkpoints into one"),
            "import-nemo": Verb("checkpoints_convert.nemo_to_megatron", "NeMo 2 to Megatron"),
            "export-nemo": Verb("checkpoints_convert.megatron_to_nemo", "Megatron to NeMo 2"),
            "import-legacy": Verb(
                "checkpoints_convert.legacy_to_megatron", "Megatron-LLM to Megatron"
            ),
        },
    ),
    Stage(
        "Pretraining",
        "train",
        {
            "plan": Verb("megatron_ext.plan", "estimate memory and throughput before launching"),
            "pretrain": Verb("megatron_ext.pretrain", "continue pretraining on Megatron Core"),
            "monitor": Verb("megatron_ext.monitor", "watch a run, or inspect a finished one"),
            "check-node": Verb("megatron_ext.node_check", "find bad nodes before a long run"),
            "should-restart": Verb(
                "megatron_ext.restart", "decide whether an ended run is worth restarting"
            ),
        },
    ),
    Stage(
        "Fine-tuning",
        "finetune",
        {
            "finetune": Verb("finetune.train", "fine-tune on instructions or questions"),
            "merge": Verb("finetune.merge", "merge or ensemble models"),
            "quantize": Verb("finetune.quantize", "quantize a model, and measure the cost"),
            "publish": Verb("finetune.export", "write a model folder with its model card"),
        },
    ),
    Stage(
        "Evaluation",
        "eval",
        {
            "evaluate": Verb("evaluation.run", "score models on medical benchmarks"),
            "report": Verb("evaluation.report", "write the HTML report of scores and runs"),
            "progress": Verb("evaluation.progress", "compare a model with the one it came from"),
            "judge": Verb("evaluation.judge", "score answers against rubrics with a judge"),
            "judge-pairs": Verb(
                "evaluation.judge_pairs", "compare the answers of models with a judge"
            ),
            "judge-agreement": Verb(
                "evaluation.judge_agreement", "measure a judge against physicians"
            ),
            "rationales": Verb("evaluation.rationales", "score the rationales of a model"),
            "agreement": Verb("evaluation.agreement", "rank metrics by agreement with judges"),
            "build-benchmark": Verb("evaluation.build", "write rationales, translate questions"),
        },
    ),
)


VERBS = {name: verb for stage in STAGES for name, verb in stage.verbs.items()}


def call(name: str, arguments: Sequence[str]) -> int | None:
    """Run a verb in this process; return its exit code.

    Raises:
        UsageError: there is no such verb, or a library that it needs is not installed.
    """
    with load(name) as module:
        code: int | None = module.main(list(arguments))
    return code


@contextlib.contextmanager
def load(name: str) -> Iterator[Any]:
    """Yield the module of a verb.

    Raises:
        UsageError: there is no such verb, or a library that it needs is not installed.
    """
    if name not in VERBS:
        raise UsageError(f"unknown verb {name!r}; {did_you_mean(name, VERBS)}")
    with explain_missing_library(name):
        yield importlib.import_module(VERBS[name].module)


@contextlib.contextmanager
def explain_missing_library(verb: str | None) -> Iterator[None]:
    """While a verb is imported and runs: name the extra that has a missing library.

    Args:
        verb: None for anything but a command, whose errors pass unchanged.

    Raises:
        UsageError: a library that the verb needs is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = _missing_library(error, verb)
        if message is None:
            raise
        raise UsageError(message) from error


def _missing_library(error: ModuleNotFoundError, verb: str | None) -> str | None:
    """Return which library a verb needs, None if the error has another cause."""
    name = error.name or ""
    library = name.partition(".")[0]
    if verb is None or not library or library in log.PACKAGES:
        return None
    is_installed = getattr(sys.modules.get(library), "__file__", None) is not None
    if name != library and is_installed:  # of another version, or the name is misspelled
        return None
    extra = next(stage.extra for stage in STAGES if verb in stage.verbs)
    return f"galen {verb} needs the library {library}: {install(extra)}"


def script_verb() -> str | None:
    """Return the verb whose command runs as a script, such as `python finetune/train.py`."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None:
        return None
    script = Path(path).resolve()
    module = f"{script.parent.name}.{script.stem}"
    return next((name for name, verb in VERBS.items() if verb.module == module), None)


def explain_imports_of_scripts() -> None:
    """Let a command that runs as a script report a missing library as `galen VERB` does.

    A script's imports fail before any of its own code runs, so this is called when a room is
    imported. Elsewhere, as in a notebook, nothing changes.
    """
    module_is_starting = sys.argv[:1] == ["-m"]
    if script_verb() is not None or module_is_starting:
        sys.excepthook = _report_missing_library


def _report_missing_library(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an exception that ends the process: a missing library of a command as one line."""
    message = None
    if isinstance(error, ModuleNotFoundError):
        message = _missing_library(error, script_verb())
    if message is None:
        sys.__excepthook__(kind, error, traceback)
        return
    print(f"error: {message}", file=sys.stderr)
    sys.exit(UsageError.exit_code)
