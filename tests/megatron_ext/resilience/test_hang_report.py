import json

from megatron_ext.resilience.hang_report import find_waits, read, root_causes
from megatron_ext.resilience.watchdog import diagnose
from tests.megatron_ext.resilience.test_watchdog import heartbeat


def group(name, ranks, last, pending=(), op="nccl:all_reduce", is_p2p=False):
    calls = [
        {"call": op, "number": number, "is_p2p": is_p2p, "pending": number in pending}
        for number in range(1, last + 1)
    ]
    return {"name": name, "description": f"GROUP_{name}", "ranks": ranks, "calls": calls}


# TP2 x DP2: rank 1 hangs, rank 0 waits for it within the tensor group, 2 and 3 for them in the
# data-parallel groups
CHAIN = {
    0: [group("tp0", [0, 1], 7, pending=[7]), group("dp0", [0, 2], 3)],
    1: [group("tp0", [0, 1], 6), group("dp1", [1, 3], 3)],
    2: [group("tp1", [2, 3], 9), group("dp0", [0, 2], 5, pending=[4, 5])],
    3: [group("tp1", [2, 3], 9), group("dp1", [1, 3], 4, pending=[4])],
}


def test_the_first_of_a_chain_of_waits_is_the_cause():
    waits = find_waits(CHAIN, set())
    assert root_causes(waits) == [1]
    assert [(wait.ranks, wait.missing) for wait in waits] == [
        ((0,), (1,)),
        ((2,), (0,)),
        ((3,), (1,)),
    ]
    assert str(waits[0]) == (
        "rank 0 waits in nccl:all_reduce (call 7 of process group GROUP_tp0, ranks 0, 1), which"
        " rank 1 has not called"
    )
    assert "call 4 of process group GROUP_dp0" in str(waits[1])  # not its last


def test_a_rank_without_a_report_is_the_missing_one():
    reports = {0: [group("tp0", [0, 1], 7, pending=[7])]}
    assert find_waits(reports, set()) == []
    (wait,) = find_waits(reports, {1})
    assert (wait.ranks, wait.missing) == ((0,), (1,))


def test_a_receiver_waits_for_its_peer():
    calls = group("pp", [4, 6], 2, pending=[2], op="nccl:recv 1<-0", is_p2p=True)
    waits = find_waits({6: [calls], 4: [group("pp", [4, 6], 0)]}, set())
    assert root_causes(waits) == [4]
    assert "nccl:recv with rank 4 (call 2 of" in str(waits[0])


def test_ranks_in_the_same_collective_wait_for_nobody():
    same = {rank: [group("world", [0, 1], 3, pending=[3])] for rank in (0, 1)}
    assert find_waits(same, set()) == []


def test_the_message_follows_the_collectives_where_all_are_in_one_phase(tmp_path):
    for rank, groups in CHAIN.items():
        content = json.dumps({"rank": rank, "groups": groups})
        (tmp_path / f"rank_{rank:05d}.collectives.json").write_text(content)
    assert read(tmp_path) == CHAIN
    message = diagnose([heartbeat(rank) for rank in CHAIN], 3, 60, tmp_path)
    assert "; the run waits for rank 1 on node1 (process 101), last in" in message
    assert message.endswith(f"which rank 1 has not called; stacks and last collectives: {tmp_path}")
    assert "rank 0 has not called" not in message
