"""Texts that are alike and unlike, and documents taken through a step over all of them."""

from data_prep.steps.global_step import Context

STORY = (
    "The patient came to the clinic in March with a cough that had lasted for six weeks, and the"
    " doctors there took an image of the chest, asked for two samples of sputum and sent him home"
    " with the advice to rest, to drink enough and to come back after the weekend."
)


def distinct(number):
    """A text of sixty words; those of two numbers have little in common."""
    return " ".join(f"w{(number * 7919 + position * 104729) % 5003}" for position in range(60))


def through(step, folder, *tasks):
    """Take documents through a step over all of them, a task for each (source, documents).

    Return what is left of each, and the context.
    """

    def run(label, steps, count):
        for rank in range(count):
            assert list(steps[0].run(None, rank, count)) == []

    context = Context(folder, [source for source, _ in tasks], run)
    for rank, (_, documents) in enumerate(tasks):
        (collector,) = step.collect(context)
        assert list(collector.run(iter(documents), rank, len(tasks))) == documents
    step.decide(context)
    return [
        list(step.apply(context).run(iter(documents), rank, len(tasks)))
        for rank, (_, documents) in enumerate(tasks)
    ], context
