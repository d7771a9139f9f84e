"""The steps by their names in recipes; their arguments are the settings of the same name in data_prep/steps.py, which have the defaults."""

from collections.abc import Callable

from datatrove.pipeline.base import PipelineStep

from data_prep.corpus_step import CorpusStep
from data_prep.decontamination.step import Decontamination
from data_prep.dedup.duplicate import Duplicates
from data_prep.dedup.identifier import Identifier
from data_prep.dedup.near_duplicate import NearDuplicates
from data_prep.filters.abstract import AbstractFilter
from data_prep.filters.animal_only import AnimalOnlyFilter
from data_prep.filters.copyright import CopyrightFilter
from data_prep.filters.language import LanguageFilter
from data_prep.filters.language_id import LanguageIdFilter
from data_prep.filters.length import LengthFilter
from data_prep.filters.licence import LicenceFilter
from data_prep.filters.medical import MedicalFilter
from data_prep.filters.pii import PiiFormatter
from data_prep.filters.publication_type import PublicationTypeFilter
from data_prep.filters.quality import QualityFilter, RepetitionFilter
from data_prep.filters.repeated_lines import RepeatedLines
from data_prep.filters.retraction import RetractionFilter
from data_prep.mixture.mixture import Mixture

STEPS: dict[str, Callable[..., PipelineStep | CorpusStep]] = {
    "abstract": AbstractFilter,
    "language": LanguageFilter,
    "retraction": RetractionFilter,
    "copyright": CopyrightFilter,
    "licence": LicenceFilter,
    "language_id": LanguageIdFilter,
    "medical": MedicalFilter,
    "publication_type": PublicationTypeFilter,
    "animal_only": AnimalOnlyFilter,
    "length": LengthFilter,
    "quality": QualityFilter,
    "repetition": RepetitionFilter,
    "pii": PiiFormatter,
    "repeated_lines": RepeatedLines,
    "duplicate": Duplicates,
    "identifier": Identifier,
    "near_duplicate": NearDuplicates,
    "decontaminate": Decontamination,
    "mixture": Mixture,
}
