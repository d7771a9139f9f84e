"""Extraction of the options that a written answer names.

The robust reader (`read`, `extract`) takes away the thinking, then looks for a structured answer,
the last explicit declaration, a line that is an option and nothing else, the concluding sentence.
What fits none of these is unparsed, and is never counted as an option. The strict readers are those
of the published code.
"""

from evaluation.scoring.answer_extraction.choices import Options
from evaluation.scoring.answer_extraction.reader import (
    Extraction,
    Status,
    extract,
    majority,
    read,
)
from evaluation.scoring.answer_extraction.strict import (
    STRICT_EXTRACTORS,
    extract_meditron,
    extract_mmedbench,
)

__all__ = [
    "STRICT_EXTRACTORS",
    "Extraction",
    "Options",
    "Status",
    "extract",
    "extract_meditron",
    "extract_mmedbench",
    "majority",
    "read",
]
