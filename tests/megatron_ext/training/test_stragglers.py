from megatron_ext.training.stragglers import find_slow

HOSTS_AND_STAGES = [("a", 0), ("a", 0), ("b", 0), ("b", 0), ("c", 1), ("c", 1)]


def test_a_slow_process_is_named_with_its_host():
    assert find_slow([1.0, 1.1, 1.0, 2.0, 3.0, 3.1], HOSTS_AND_STAGES, 1.3) == [
        {"rank": 3, "host": "b", "seconds": 2.0, "median": 1.0}
    ]


def test_a_stage_with_more_work_is_not_slow():
    assert find_slow([1.0, 1.1, 1.0, 1.2, 5.0, 5.5], HOSTS_AND_STAGES, 1.3) == []


def test_one_of_two():
    assert [slow["rank"] for slow in find_slow([1.0, 2.0], [("a", 0), ("b", 0)], 1.3)] == [1]


def test_a_single_process():
    assert find_slow([7.0], [("a", 0)], 1.3) == []
