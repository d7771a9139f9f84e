import dataclasses
from typing import get_args

import pytest

from data_prep.curation.registry import STEPS, is_global
from data_prep.steps.base import DocumentFilter, StepSettings
from data_prep.steps.global_step import GlobalStep


@pytest.mark.parametrize("name", STEPS)
def test_settings_name_their_step_and_document_their_keys(name):
    step = STEPS[name]
    assert issubclass(step, DocumentFilter | GlobalStep)
    assert issubclass(step.Settings, StepSettings)
    fields = step.Settings.__pydantic_fields__
    assert get_args(fields["step"].annotation) == (name,)
    assert step.Settings.__doc__
    assert [key for key in fields if key != "step" and not fields[key].description] == []


def test_global_steps_are_barriers():
    required = {"decontaminate": {"eval_datasets": ["x"]}, "publication_type": {"drop": ["x"]}}
    settings = [step.Settings(**required.get(name, {})) for name, step in STEPS.items()]
    assert all(dataclasses.is_dataclass(item) for item in settings)
    names = {item.step for item in settings if is_global(item)}
    assert names == {"line_dedup", "exact_dedup", "dedup_by_id", "minhash_dedup", "mixture"}
