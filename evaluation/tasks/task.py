"""Tasks: short YAML files that define a benchmark.

Built-in ones are in `evaluation/tasks/`, others are named by their path.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from evaluation import question_sets
from evaluation.prompts.task_prompt import TaskPrompt
from evaluation.question_sets import field_reader, rows
from evaluation.question_sets.fields import Fields
from evaluation.question_sets.question import Question, sample_options
from evaluation.question_sets.reader import Reader
from evaluation.tasks.generation import GenerationTask
from evaluation.tasks.rubric import RubricTask
from galen import recipe, shipped, yaml_text
from galen.errors import DataError, UsageError, closest, did_you_mean

BUILT_IN = Path(__file__).parent
LM_EVAL = "lm_eval:"
"""Beginning of the name of a task of lm-evaluation-harness."""


@dataclass(kw_only=True, config=recipe.STRICT)
class MultipleChoiceTask:
    """Accuracy on questions with lettered options."""

    kind: Literal["multiple_choice"]
    """What is measured."""
    file: str
    """Questions: a file or folder below --data, or `hub:OWNER/NAME[:CONFIGURATION]:SPLIT`."""
    reader: str = "galen"
    """Layout of the file, a key of `evaluation.question_sets.READERS`."""
    fields: Fields | None = None
    """In place of `reader`: which columns hold the parts of a question."""
    test_split: str | None = None
    """Score only records of this split (see `fields.split`); null: all."""
    ids: str | None = None
    """File with the ids of the questions to score, below --data; null: all."""
    subjects: list[str] | None = None
    """Score only questions with these subjects; null: all."""
    max_options: Annotated[int, Field(ge=2)] | None = None
    """Show at most so many options: the right ones, and wrong ones chosen by a hash; null: all.

    Empty options are never chosen.
    """
    fewshot_source: str | None = None
    """Where few-shot protocols take few-shot examples from (the training set), as `file`."""
    fewshot_examples: str | None = None
    """In place of `fewshot_source`.

    A file in Galen's layout whose first questions precede every question, in its order.
    """
    fewshot_split: str | None = None
    """Take few-shot examples only from this split, of `fewshot_source` or else of `file`."""
    fewshot_by_subject: bool | None = None
    """Show examples of the question's own subject; null: as the reader does (mmlu: true).

    Only under protocols that do so (`lm_eval`, `lm_eval_continuation`).
    """
    fewshot_sampler: Literal["first_n", "random"] | None = None
    """Which few-shot examples: the first ones, or those with the smallest hashes with the seed.

    Under `lm_eval`; null: first_n by subject, else random.
    """
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Few-shot examples under `lm_eval`, unless the recipe sets them; null: the protocol's number.
    """
    prompt: TaskPrompt | None = None
    """Wording of the task under `lm_eval`; null: the protocol's."""
    metric: Literal["acc", "acc_norm", "acc_bytes"] | None = None
    """Under `lm_eval`: the likeliest answer counts, per character or per byte; null: acc."""

    def __post_init__(self) -> None:
        if self.reader not in question_sets.READERS:
            raise ValueError(
                f"reader must be one of {', '.join(question_sets.READERS)}, not {self.reader!r}"
            )
        if self.fields is not None and self.reader != "galen":
            raise ValueError("give one of the keys 'reader' and 'fields'")
        for key in ("test_split", "fewshot_split"):
            has_split = self.fields is not None and self.fields.split is not None
            if getattr(self, key) is not None and not has_split:
                raise ValueError(f"key {key!r} needs the key 'fields.split'")

    @property
    def fewshot_file(self) -> str | None:
        """The file of few-shot examples in the task's layout; None where there is none."""
        if self.fewshot_source is None and self.fewshot_split is not None:
            return self.file
        return self.fewshot_source

    @property
    def question_set(self) -> str:
        """The benchmark whose wording published templates use, or an empty string."""
        return self.reader if self.fields is None else self.fields.question_set

    def layout(self, split: str | None = None) -> Reader:
        """Return the reader of the task's files, of one split or of all records."""
        if self.fields is None:
            return question_sets.reader(self.reader)
        return field_reader.task_reader(self.fields, split)

    def source(self, data: Path, name: str) -> str | Path:
        """Return where `name`, one of the task's files, is."""
        return name if name.startswith(rows.HUB) else data / name

    def files(self, data: Path, name: str) -> list[Path]:
        """Return the files of `name`, one of the task's files or folders, on this machine.

        Raises:
            DataError: they do not exist; says where a published question set comes from.
        """
        source = self.source(data, name)
        if self.reader != "galen" and isinstance(source, Path) and not source.exists():
            raise DataError(
                f"there is no file {source}; docs/evaluation/tasks.md#download-locations says where"
                " to get it (paths are below --data)"
            )
        return rows.files(source, self.layout().table)

    def questions(self, data: Path) -> list[Question]:
        """Read the questions to score.

        Raises:
            DataError: they are not there, or a record is wrong.
        """
        layout = self.layout(self.test_split)
        found = question_sets.read(layout, self.source(data, self.file))
        found = question_sets.select(found, data / self.ids if self.ids else None, self.subjects)
        return self._with_max_options(found)

    def fewshot_candidates(self, data: Path) -> list[Question]:
        """Read the questions that few-shot examples are selected from, in the task's layout."""
        layout = self.layout(self.fewshot_split)
        if self.fields is not None:
            # published training sets have ids twice; only ids of samples must be unique
            layout = field_reader.task_reader(self.fields, self.fewshot_split, unique_ids=False)
        found = question_sets.read(layout, self.source(data, self.fewshot_file or ""))
        return self._with_max_options(found)

    def _with_max_options(self, questions: list[Question]) -> list[Question]:
        if self.max_options is None:
            return questions
        return [sample_options(item, self.max_options) for item in questions]


@dataclass(kw_only=True, config=recipe.STRICT)
class PerplexityTask:
    """Perplexity on documents."""

    kind: Literal["perplexity"]
    """What is measured."""
    documents: str
    """Folder of `.jsonl.gz` or `.jsonl` files with curated documents, a path below --data."""
    max_documents: Annotated[int, Field(ge=1)] | None = None
    """Score only so many documents, chosen by a hash of their ids; null: all."""
    max_tokens: Annotated[int, Field(ge=2)] = 1024
    """Score only the first so many tokens of each document."""


@dataclass(kw_only=True, config=recipe.STRICT)
class LmEvalTask:
    """A task or group of the installed lm-evaluation-harness, by its own definition."""

    kind: Literal["lm_eval"] = "lm_eval"
    """What is measured."""
    task: str
    """Name of a task or group of the harness."""
    include_path: str | None = None
    """Folder of further task files, as the harness' `--include_path`."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Few-shot examples; null: the task's number, or none."""
    fewshot_seed: int = 1234
    """Seed of the few-shot examples."""
    generation_kwargs: dict[str, Any] | None = None
    """Settings that override the task's own of this name, such as max_gen_toks."""


Task = MultipleChoiceTask | GenerationTask | RubricTask | PerplexityTask | LmEvalTask
_KINDS: dict[str, Any] = {
    "multiple_choice": MultipleChoiceTask,
    "generation": GenerationTask,
    "rubric": RubricTask,
    "perplexity": PerplexityTask,
    "lm_eval": LmEvalTask,
}


def load(name: str) -> tuple[str, Task]:
    """Return the short name and the specification of a task.

    The name is that of a built-in task, the path of a YAML file, or `lm_eval:NAME`, a task of
    lm-evaluation-harness.

    Raises:
        UsageError: there is no such task (the nearest name is given), or the YAML is wrong (file,
            line and key are given).
    """
    if name.startswith(LM_EVAL):
        return name, LmEvalTask(task=name.removeprefix(LM_EVAL))
    built_in = {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}
    path = built_in.get(name, Path(name))
    if name not in built_in and path.suffix not in (".yaml", ".yml"):
        if Path(f"{name}.yaml").is_file():
            raise UsageError(f"unknown task {name!r}; did you mean {name + '.yaml'!r}?")
        raise UsageError(
            f"unknown task {name!r}; {did_you_mean(name, built_in)}"
            " (or give the path of a task's .yaml file)"
        )
    _check_exists(path)
    specification: Task = recipe.load(_KINDS[_kind(path)], path)
    if isinstance(specification, MultipleChoiceTask | GenerationTask):
        for section in (specification.fields, specification.prompt):
            if section is not None:
                section.yaml = str(path)
    return path.stem, specification


def _check_exists(path: Path) -> None:
    """Refuse a task file that does not exist.

    Raises:
        UsageError: it does not; suggests one of the same folder.
    """
    if shipped.resolve(path).exists():
        return
    meant = closest(path.name, [file.name for file in path.parent.glob("*.yaml")])
    hint = f"; did you mean {str(path.with_name(meant))!r}?" if meant else ""
    raise UsageError(f"there is no task file {path}{hint}")


def _kind(path: Path) -> str:
    """Return the `kind` of a task file.

    Other errors of the file are left to `recipe.load`, which knows the lines.
    """
    try:
        tree, _ = yaml_text.read(path)
    except UsageError:
        return "multiple_choice"
    kind = tree.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UsageError(f"{path}: key 'kind' must be one of {', '.join(_KINDS)}, not {kind!r}")
    return kind
