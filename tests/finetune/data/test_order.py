from finetune.data.order import EpochSampler, Rows
from finetune.data.sample import BLANK, Sample

SAMPLES = [Sample.of([1], [number]) for number in range(10)]


def test_each_row_comes_once_an_epoch_and_blank_ones_fill_the_last_step():
    order, rows = EpochSampler(SAMPLES, 4, seed=3), Rows(SAMPLES)
    epochs = []
    for epoch in (0, 1, 0):
        order.set_epoch(epoch)
        epochs.append(list(order))
        assert len(epochs[-1]) == len(order) == 12 and sorted(epochs[-1]) == list(range(12))
        assert [rows[place] is BLANK for place in epochs[-1]] == [False] * 10 + [True] * 2
    assert epochs[0] == epochs[2] != epochs[1]
    assert order.steps == 3


def test_consumed_samples_and_tokens_are_counted_in_packed_rows_too_and_blank_ones_are_not():
    order = EpochSampler(
        [[SAMPLES[0], SAMPLES[1]], [SAMPLES[2]], [SAMPLES[3], SAMPLES[4], SAMPLES[5]]], 2, seed=0
    )
    counts, tokens = zip(*map(order.consumed, range(5)), strict=True)
    assert tokens == tuple(2 * count for count in counts)
    assert counts[0] == 0 and counts[2] == 6 and counts[4] == 12
    order.set_epoch(0)
    first = list(order)[:2]
    assert counts[1] == sum(len(order.rows[place]) for place in first)
