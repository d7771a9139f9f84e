import pytest

from checkpoints_convert import legacy_to_megatron


@pytest.mark.parametrize("workers", ["0", "-1", "1.5", "two"])
def test_workers_are_a_number_of_at_least_one(workers, capsys):
    with pytest.raises(SystemExit) as ended:
        legacy_to_megatron.main(
            ["--legacy", "old", "--output", "new", "--vocab-size", "300", "--workers", workers]
        )
    assert ended.value.code == 2
    assert (
        f"--workers: '{workers}': a whole number of at least 1 is wanted" in capsys.readouterr().err
    )
