"""The steps by their names in recipes (data_prep/steps.py has their settings, which are the arguments here)."""

from collections.abc import Callable

from datatrove.pipeline.base import PipelineStep

from data_prep.corpus_step import CorpusStep
from data_prep.dedup.duplicate import Duplicates
from data_prep.filters.abstract import AbstractFilter
from data_prep.filters.copyright import CopyrightFilter
from data_prep.filters.language import LanguageFilter
from data_prep.filters.retraction import RetractionFilter

STEPS: dict[str, Callable[..., PipelineStep | CorpusStep]] = {
    "abstract": AbstractFilter,
    "language": LanguageFilter,
    "retraction": RetractionFilter,
    "copyright": CopyrightFilter,
    "duplicate": Duplicates,
}
