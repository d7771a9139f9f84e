"""The steps that a recipe can name: a line for each.

The recipe's keys are those of the class's `Settings`, which are defined in the step's file.
"""

from typing import Any

from data_prep.steps.base import DocumentFilter, DocumentWriter, StepSettings
from data_prep.steps.decontamination.step import Decontamination
from data_prep.steps.dedup.article_id import DedupById
from data_prep.steps.dedup.exact import ExactDedup
from data_prep.steps.dedup.minhash import MinhashDedup
from data_prep.steps.dedup.repeated_lines import LineDedup
from data_prep.steps.filters.abstract import AbstractFilter
from data_prep.steps.filters.animal_only import AnimalOnlyFilter
from data_prep.steps.filters.copyright import CopyrightFilter
from data_prep.steps.filters.language import LanguageFilter
from data_prep.steps.filters.language_id import LanguageIdFilter
from data_prep.steps.filters.length import LengthFilter
from data_prep.steps.filters.license import LicenseFilter
from data_prep.steps.filters.medical import MedicalFilter
from data_prep.steps.filters.pii import PiiFilter
from data_prep.steps.filters.publication_type import PublicationTypeFilter
from data_prep.steps.filters.quality import QualityFilter, RepetitionFilter
from data_prep.steps.filters.retraction import RetractionFilter
from data_prep.steps.global_step import GlobalStep
from data_prep.steps.mixture.mixture import Mixture

_CLASSES: tuple[type[DocumentFilter[Any]] | type[GlobalStep[Any]], ...] = (
    AbstractFilter,
    LanguageFilter,
    RetractionFilter,
    CopyrightFilter,
    LicenseFilter,
    LanguageIdFilter,
    MedicalFilter,
    PublicationTypeFilter,
    AnimalOnlyFilter,
    LengthFilter,
    QualityFilter,
    RepetitionFilter,
    PiiFilter,
    LineDedup,
    ExactDedup,
    DedupById,
    MinhashDedup,
    Decontamination,
    Mixture,
)
STEPS: dict[str, Any] = {step.name: step for step in _CLASSES}
"""The classes of the steps by their names, in the order of the recipe's help."""


def is_global(settings: StepSettings) -> bool:
    """Return whether a step decides over all documents at once."""
    return issubclass(STEPS[settings.step], GlobalStep)


def build_step(settings: StepSettings, exclusion_writer: DocumentWriter | None = None) -> Any:
    """Return the step with these settings, for documents of all sources.

    Args:
        settings: an instance of the `Settings` of a class in `STEPS`.
        exclusion_writer: writer of the dropped documents; a `GlobalStep` takes it from its context.
    """
    step = STEPS[settings.step]
    if is_global(settings):
        return step(settings)
    return step(settings, exclusion_writer)
