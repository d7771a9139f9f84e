import json

import pytest

from checkpoints_convert import hf_to_megatron, legacy_to_megatron, megatron_to_hf
from galen.errors import UsageError


@pytest.mark.parametrize("workers", ["0", "-1", "1.5", "two"])
def test_workers_are_a_positive_integer(workers):
    message = f"--workers: '{workers}' is not a positive integer"
    with pytest.raises(UsageError, match=message):
        legacy_to_megatron.main(
            ["--legacy", "old", "--output", "new", "--vocab-size", "300", "--workers", workers]
        )


def test_recipes_equal_options(tmp_path, tied_llama):
    """The example recipes, with the paths of this test, against the same options as flags."""
    start, exported = tmp_path / "start", tmp_path / "exported"
    hf_to_megatron.main(
        ["examples/convert/import_meditron.yaml", f"hf={tied_llama}", f"output={start}"]
    )
    megatron_to_hf.main(["examples/convert/export.yaml", f"megatron={start}", f"output={exported}"])
    flags = ["--hf", str(tied_llama), "--tensor-model-parallel-size", "8", "--output"]
    tokens = ["--add-special-tokens", "examples/special_tokens/meditron.txt"]
    hf_to_megatron.main([*flags, str(tmp_path / "by-flags"), *tokens])
    name = "iter_0000000/__0_0.distcp"
    assert (start / name).read_bytes() == (tmp_path / "by-flags" / name).read_bytes()
    assert json.loads((exported / "config.json").read_text())["dtype"] == "bfloat16"
