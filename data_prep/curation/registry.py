"""The steps by their names in recipes.

Their arguments are the settings of the same name in data_prep/steps/options.py, which have the
defaults.
"""

from collections.abc import Callable

from datatrove.pipeline.base import PipelineStep

from data_prep.steps.decontamination.step import Decontamination
from data_prep.steps.dedup.article_id import Identifier
from data_prep.steps.dedup.exact import Duplicates
from data_prep.steps.dedup.minhash import NearDuplicates
from data_prep.steps.dedup.repeated_lines import RepeatedLines
from data_prep.steps.filters.abstract import AbstractFilter
from data_prep.steps.filters.animal_only import AnimalOnlyFilter
from data_prep.steps.filters.copyright import CopyrightFilter
from data_prep.steps.filters.language import LanguageFilter
from data_prep.steps.filters.language_id import LanguageIdFilter
from data_prep.steps.filters.length import LengthFilter
from data_prep.steps.filters.license import LicenseFilter
from data_prep.steps.filters.medical import MedicalFilter
from data_prep.steps.filters.pii import PiiFormatter
from data_prep.steps.filters.publication_type import PublicationTypeFilter
from data_prep.steps.filters.quality import QualityFilter, RepetitionFilter
from data_prep.steps.filters.retraction import RetractionFilter
from data_prep.steps.global_step import CorpusStep
from data_prep.steps.mixture.mixture import Mixture

STEPS: dict[str, Callable[..., PipelineStep | CorpusStep]] = {
    "abstract": AbstractFilter,
    "language": LanguageFilter,
    "retraction": RetractionFilter,
    "copyright": CopyrightFilter,
    "license": LicenseFilter,
    "language_id": LanguageIdFilter,
    "medical": MedicalFilter,
    "publication_type": PublicationTypeFilter,
    "animal_only": AnimalOnlyFilter,
    "length": LengthFilter,
    "quality": QualityFilter,
    "repetition": RepetitionFilter,
    "pii": PiiFormatter,
    "line_dedup": RepeatedLines,
    "exact_dedup": Duplicates,
    "dedup_by_id": Identifier,
    "minhash_dedup": NearDuplicates,
    "decontaminate": Decontamination,
    "mixture": Mixture,
}
