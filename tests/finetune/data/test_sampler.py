from finetune.data.sample import BLANK, Sample
from finetune.data.sampler import EpochSampler, Rows

SAMPLES = [Sample.of([1], [number]) for number in range(10)]


def test_each_row_comes_once_an_epoch_and_blank_ones_fill_the_last_step():
    sampler, rows = EpochSampler(SAMPLES, 4, seed=3), Rows(SAMPLES)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert len(epochs[-1]) == len(sampler) == 12 and sorted(epochs[-1]) == list(range(12))
        assert [rows[place] is BLANK for place in epochs[-1]] == [False] * 10 + [True] * 2
    assert epochs[0] == epochs[2] != epochs[1]
    assert sampler.steps == 3


def test_consumed_samples_and_tokens_are_counted_in_packed_rows_too_and_blank_ones_are_not():
    sampler = EpochSampler(
        [[SAMPLES[0], SAMPLES[1]], [SAMPLES[2]], [SAMPLES[3], SAMPLES[4], SAMPLES[5]]], 2, seed=0
    )
    counts, tokens = zip(*map(sampler.consumed, range(5)), strict=True)
    assert tokens == tuple(2 * count for count in counts)
    assert counts[0] == 0 and counts[2] == 6 and counts[4] == 12
    sampler.set_epoch(0)
    first = list(sampler)[:2]
    assert counts[1] == sum(len(sampler.rows[place]) for place in first)
