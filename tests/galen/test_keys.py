import pytest

from galen import keys
from galen.errors import UsageError


def test_a_key_is_read_without_blanks_around_it_and_hidden(monkeypatch):
    monkeypatch.setenv("S2_API_KEY", " sentinel-1 \n")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert (keys.read("S2_API_KEY"), keys.read("HF_TOKEN")) == ("sentinel-1", "")
    assert keys.hide("none: the key sentinel-1 is wrong") == "none: the key [key] is wrong"


@pytest.mark.parametrize(
    "key", ["sen\ntinel", "sen tinel", "sentinél", "sen\x00tinel"[:3] + "\x7f"]
)
def test_what_is_no_key_is_refused_without_showing_it(monkeypatch, key):
    monkeypatch.setenv("HF_TOKEN", key)
    with pytest.raises(UsageError, match="HF_TOKEN holds blanks or characters") as caught:
        keys.read("HF_TOKEN")
    assert "sen" not in str(caught.value)
