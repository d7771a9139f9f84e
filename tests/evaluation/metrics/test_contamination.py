"""Ids of contaminated samples against those of the tasks."""

from evaluation.metrics import contamination


def test_ids_of_no_task_and_of_several_are_named(caplog):
    ids = {"a": {"1", "2"}, "b": {"1", "3"}}
    contamination.warn_of_ids({"": frozenset({"3"}), "a": frozenset({"1"})}, ids)
    contamination.warn_of_ids({"": frozenset()}, ids)
    assert not caplog.records
    contamination.warn_of_ids({"": frozenset({"test:1"})}, ids)
    contamination.warn_of_ids({"": frozenset({"1", "3"})}, ids)
    of_none, of_several = [record.getMessage() for record in caplog.records]
    assert "none of the contaminated ids, such as 'test:1', is a sample of a, b" in of_none
    assert "1 contaminated ids, such as '1', are samples of several tasks" in of_several
