"""The table that `galen evaluate` prints."""

from evaluation.reporting import results_table


def estimate(value, low, high, **more):
    return {"value": value, "low": low, "high": high, **more}


def test_numbers_are_those_of_the_report():
    medqa = {
        "samples": 8,
        "metrics": {"accuracy": estimate(0.5, 0.2152, 0.7848)},
        "chance": 0.25,
        "contaminated": 2,
        "clean": estimate(1 / 3, 0.1, 1.0, samples=6),
    }
    documents = {"samples": 3, "metrics": {"perplexity": estimate(12.3456, 11, 1234.5)}}
    results = {"tasks": {"medqa": medqa, "documents": documents}}
    heading, _, *rows = results_table.table(results, "tiny").splitlines()
    assert heading == "tiny"
    assert [row.split(maxsplit=3) for row in rows] == [
        ["medqa", "8", "accuracy", "50.0 %  21.5 to 78.5 %  (chance 25.0 %)"],
        ["medqa", "6", "clean", "33.3 %  10.0 to 100.0 %  (2 contaminated samples excluded)"],
        ["documents", "3", "perplexity", "12.35   11.00 to 1,234"],
    ]
