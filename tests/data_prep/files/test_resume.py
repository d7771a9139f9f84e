import pytest

from data_prep.files.resume import finished
from galen import manifest
from galen.errors import OutputConflictError


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"sources": [{"path": "a", "reader": "jats"}], "seed": 1},
            r"a run with sources\.0\.path = 'b' \(now 'a'\); remove",
        ),
        (
            {"sources": [{"path": "b", "reader": "jats"}] * 2, "seed": 1},
            r"a run with sources = \[\{'path': 'b'.*\}\] \(now \[",
        ),
        (
            {"sources": [{"path": "b", "reader": "jats"}], "seed": 2},
            r"a run with seed = 1 \(now 2\); remove",
        ),
        (
            {"sources": [{"path": "b", "reader": "jats"}], "seed": "x" * 5000},
            r"a run with seed = 1 \(now 'x{199}\); remove",
        ),
    ],
)
def test_another_configuration_is_told_by_its_keys(tmp_path, config, message):
    path = tmp_path / "manifest.json"
    manifest.write(
        path,
        stage="s",
        inputs=[],
        config={"sources": [{"path": "b", "reader": "jats"}], "seed": 1},
        outputs=[],
        counts={},
    )
    with pytest.raises(OutputConflictError, match=message):
        finished(path, "s", [], config)
