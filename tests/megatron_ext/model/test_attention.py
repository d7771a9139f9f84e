import pytest
import torch

from megatron_ext.model.attention import _context_parallel_mask, context_parallel_positions


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("rank", [0, 1])
def test_mask_of_a_context_parallel_process(rank, window):
    """Rows are the process's own positions, columns those of all processes in rank order."""
    bounds = torch.tensor([0, 8])
    positions = [context_parallel_positions(bounds, other, 2) for other in range(2)]
    mask = _context_parallel_mask(4, rank, 2, window, torch.device("cpu"))
    for row, query in enumerate(positions[rank].tolist()):
        for column, key in enumerate(torch.cat(positions).tolist()):
            expected = key <= query and (window is None or query - key < window)
            assert mask[row, column] == expected
