"""Token trees: shared tokens are stored once, and each token attends to its own branch only."""

import random

from evaluation.backends import tree_attention

CONTINUATIONS = [[5, 6, 7], [5, 6, 8, 9], [5, 3], [4], [5, 6, 8, 2]]


def test_a_common_prefix_of_continuations_is_one_branch():
    tree = tree_attention.tree([1, 2], CONTINUATIONS)
    assert tree.tokens == [1, 2, 5, 6, 8]  # the last token of a continuation is only predicted
    assert tree.depths == [0, 1, 2, 3, 4]
    assert tree.logit_positions == [[1, 2, 3], [1, 2, 3, 4], [1, 2], [1], [1, 2, 3, 4]]


def test_every_token_attends_to_the_shared_prefix_and_its_own_branch():
    draw = random.Random(0)
    trees = [
        tree_attention.tree(
            [draw.randrange(9) for _ in range(draw.randrange(1, 40))],
            [[draw.randrange(3) for _ in range(draw.randrange(1, 7))] for _ in range(5)],
        )
        for _ in range(30)
    ]
    rows = tree_attention.pack(trees, 3)
    width = rows.tokens_rs.shape[1]
    for tree, start in zip(trees, rows.starts, strict=True):
        row, column = divmod(start, width)
        for positions in tree.logit_positions:
            branch = [*range(positions[0] + 1), *positions[1:]]
            last = branch[-1]
            assert rows.positions_rs[row, column + last] == 3 + len(branch) - 1
            attended = rows.attention_mask_r1st[row, 0, column + last].nonzero()[:, 0].tolist()
            assert attended == [0, 1, 2, *(3 + column + position for position in branch)]
    own = sum(len(tree.tokens) for tree in trees)
    assert own <= rows.tokens_rs.numel() < 1.25 * own
