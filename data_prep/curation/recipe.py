"""The recipe of a corpus."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from data_prep.curation.registry import STEPS
from data_prep.readers import READERS
from data_prep.readers.common_options import ReaderOptions
from data_prep.steps.base import Fraction, StepSettings
from data_prep.steps.dedup.exact import ExactDedupSettings
from data_prep.steps.filters.abstract import AbstractSettings
from data_prep.steps.filters.copyright import CopyrightSettings
from data_prep.steps.filters.language import LanguageSettings
from data_prep.steps.filters.retraction import RetractionSettings
from galen.errors import did_you_mean
from galen.recipe import STRICT, ResumeMayChange
from galen.recipe_variants import Variants, validate_variant

SPLITS = ("train", "validation", "test")


def _check_reader(name: str) -> str:
    if name not in READERS:
        raise ValueError(f"unknown reader {name!r}; {did_you_mean(name, READERS)}")
    return name


_OPTIONS = Variants({name: reader.Options for name, reader in READERS.items()})


@dataclass(kw_only=True, config=STRICT)
class Source:
    """Raw files of one format."""

    reader: Annotated[str, AfterValidator(_check_reader)] = Field(
        description=(
            f"How to read them: {', '.join(READERS)}; docs/sources.md lists formats and endings."
            " `records` is JSONL or Parquet as on the Hugging Face hub."
        )
    )

    path: str
    """A file, a folder (searched below) or a glob; relative paths start at the working directory.

    Also an fsspec address (s3://…,
    hf://datasets/…), whose package must be installed.
    """

    options: Annotated[SerializeAsAny[ReaderOptions], _OPTIONS] = Field(
        default_factory=ReaderOptions
    )
    """How to read and render them: the options of all readers and those of the chosen one."""

    name: str | None = None
    """Name in steps, counts and the report; null: the reader's. Sources of one name count as one.
    """

    license: str | None = None
    """License of the complete source, for the manifest."""

    @model_validator(mode="before")
    @classmethod
    def _check_options(cls, data: Any) -> Any:
        keys = data.kwargs if isinstance(data, ArgsKwargs) else data
        if not isinstance(keys, Mapping):
            return data
        reader = keys.get("reader")
        if not isinstance(reader, str) or reader not in READERS:
            # the reader alone is reported
            return ArgsKwargs((), {key: keys[key] for key in keys if key != "options"})
        options = keys.get("options", {})
        if isinstance(options, Mapping):
            owner = f"the reader {reader!r}"
            options = validate_variant(READERS[reader].Options, "options", options, owner)
        return ArgsKwargs((), {**keys, "options": options})


@dataclass(kw_only=True, config=STRICT)
class SplitFractions:
    """Fractions of documents; a fraction of 0 leaves that split out."""

    train: Fraction = 0.96
    """Fraction for training."""

    validation: Fraction = 0.02
    """Fraction for the validation loss during training."""

    test: Fraction = 0.02
    """Fraction for evaluation afterwards."""

    salt: str = "galen"
    """Another salt gives another random division."""

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitFractions":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, they are {total:g}")
        return self


@dataclass(kw_only=True, config=STRICT)
class Shuffle:
    """A global shuffle.

    Documents come in the order of a hash, so the order depends on the seed alone.
    """

    seed: int = 42
    """Another seed gives another order."""

    bucket_megabytes: int = Field(default=256, ge=1)
    """Text that a worker holds in memory at a time.

    It sets the number of files of each split.
    """


@dataclass(kw_only=True, config=STRICT)
class Report:
    """Contents of statistics.json and the report of the corpus besides numbers."""

    samples: bool = True
    """Samples of kept and dropped documents, and of the matches that decontamination found.

    false: none, as for clinical notes; with `save_excluded: true` and in contamination.jsonl they
    are still on disk.
    """


def _as_mappings(steps: Any) -> Any:
    """Return the steps of a recipe as mappings; a step without settings may be its name alone."""
    if not isinstance(steps, list):
        return steps
    return [{"step": step} if isinstance(step, str) else step for step in steps]


if TYPE_CHECKING:
    Steps = list[StepSettings]
else:
    _AnyStep = reduce(or_, (step.Settings for step in STEPS.values()))
    Steps = Annotated[
        list[Annotated[_AnyStep, Field(discriminator="step")]], BeforeValidator(_as_mappings)
    ]


def _default_steps() -> list[StepSettings]:
    return [
        AbstractSettings(),
        LanguageSettings(),
        RetractionSettings(),
        CopyrightSettings(),
        ExactDedupSettings(),
    ]


@dataclass(kw_only=True, config=STRICT)
class CorpusRecipe:
    """A corpus: where its documents come from, which stay, how they are divided."""

    output: str
    """Folder for the corpus; it appears when all is done."""

    sources: list[Source] = Field(min_length=1)
    """Raw files, in order: of two records with the same id the later one stays."""

    steps: Steps = Field(default_factory=_default_steps)
    """Processing of each document, in order.

    A step is its name, or a mapping with `step: <name>` and its settings.
    """

    max_error_rate: ResumeMayChange[Fraction] = 0.001
    """Largest fraction of the records, or of the files, that may be quarantined as unreadable.

    The command fails above it.
    """

    split: SplitFractions = Field(default_factory=SplitFractions)
    """Fractions of documents, by a hash of the identifier."""

    shuffle: Shuffle | None = None
    """Shuffle the documents of each split; null leaves them in the order of the sources."""

    save_excluded: bool = False
    """Also write the dropped documents, to excluded/<step>/."""

    report: Report = Field(default_factory=Report)
    """Contents of the report."""

    tokenizer: str | None = None
    """Tokenizer (as of `galen preprocess`) to count tokens with.

    null estimates them from the bytes of the text.
    """

    @model_validator(mode="after")
    def _check_steps(self) -> "CorpusRecipe":
        names = [source.name or source.reader for source in self.sources]
        earlier: set[str] = set()
        for step in self.steps:
            for required in step.required_before:
                if required not in earlier:
                    raise ValueError(f"the step {step.step} needs the step {required} before it")
            if unknown := step.source_names() - set(names):
                raise ValueError(
                    f"the step {step.step} names {', '.join(sorted(unknown))}; the sources are"
                    f" {', '.join(names)}"
                )
            earlier.add(step.step)
        return self
