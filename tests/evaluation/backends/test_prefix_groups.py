"""Groups of prompts by their prefix."""

from evaluation.backends.prefix_groups import PrefixGroup, common_prefix_length, groups


def test_each_subject_with_its_few_shot_examples_is_a_group():
    general, subjects = [1] * 20, [[2] * 100, [3] * 100, [4] * 5]
    prompts = [general + subject + [10 + n, 7] for n in range(8) for subject in subjects]
    actual = {tuple(group.indices): group.length for group in groups(prompts)}
    # the third subject's own five tokens do not pay for a group; it shares what all share
    assert actual == {
        tuple(range(0, 24, 3)): 120,
        tuple(range(1, 24, 3)): 120,
        tuple(range(2, 24, 3)): 25,
    }


def test_prompts_that_share_little_are_one_group_without_a_prefix():
    assert groups([[1, 2, 3], [1, 2, 4], [5]]) == [PrefixGroup(0, [0, 1, 2])]
    assert groups([[1] * 50]) == [PrefixGroup(0, [0])]
    assert groups([]) == []


def test_every_prompt_keeps_a_token_of_its_own():
    prompts = [[1] * 30, [1] * 30, [1] * 40]
    assert common_prefix_length(prompts) == 29
    assert groups(prompts) == [PrefixGroup(29, [0, 1, 2])]


def test_a_short_prefix_pays_for_many_prompts():
    prompts = [[1] * 8 + [10 + n, 7] for n in range(64)]
    assert groups(prompts) == [PrefixGroup(8, list(range(64)))]
    assert groups(prompts[:20]) == [PrefixGroup(0, list(range(20)))]
