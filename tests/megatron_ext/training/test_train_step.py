import torch

from megatron_ext.training.train_step import _count


def test_squared_lengths_of_the_texts_without_their_padding():
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [*range(8)]])
    assert _count(positions, None).tolist() == [0, 16, 2 * 4**2 + 8**2]
    padding = torch.zeros(2, 8, dtype=torch.bool)
    padding[0, 3] = padding[1, 5:] = True
    assert _count(positions, padding).tolist() == [4, 12, 3**2 + 4**2 + 5**2]
