"""A model's own generation settings."""

import json

import pytest

from evaluation.backends.sampling import ModelDefaults, model_defaults
from galen.errors import DataError


def config(tmp_path, **values):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    return tmp_path


def test_a_model_without_the_file_or_do_sample_is_greedy(tmp_path):
    assert model_defaults(tmp_path) == ModelDefaults(temperature=0.0)
    folder = config(tmp_path, temperature=0.6, top_p=0.9, repetition_penalty=1.1)
    assert model_defaults(folder) == ModelDefaults(temperature=0.0, repetition_penalty=1.1)


def test_a_model_that_samples_has_its_own_settings(tmp_path):
    folder = config(tmp_path, do_sample=True, temperature=0.6, top_p=0.95, top_k=20)
    assert model_defaults(folder) == ModelDefaults(temperature=0.6, top_p=0.95, top_k=20)
    folder = config(tmp_path, do_sample=True, max_new_tokens=2048)
    assert model_defaults(folder) == ModelDefaults(temperature=1.0, max_new_tokens=2048)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_p": "0.9"}, "top_p = '0.9' is not a number above 0"),
        ({"top_p": 1.5}, "top_p = 1.5 is above 1"),
        ({"do_sample": "yes"}, "do_sample = 'yes' is neither true nor false"),
        ({"top_k": -1}, "top_k = '-1' is not a number from 0 on"),
        ({"temperature": -0.5}, "temperature = -0.5 is below 0"),
        ({"repetition_penalty": 0}, "repetition_penalty = '0' is not a number above 0"),
        ({"max_new_tokens": True}, "max_new_tokens = 'True' is not a number"),
    ],
)
def test_damaged_settings_are_named(tmp_path, values, message):
    with pytest.raises(DataError, match=message):
        model_defaults(config(tmp_path, **{"do_sample": True, **values}))
