"""Published runs of mixtures of experts; their sources are those of `published_runs`.

All of them force balanced routing.
"""

from typing import Any

from benchmarks.published_runs import seconds_run, tokens_run

Q30 = "Qwen3 30B-A3B"
Q235 = "Qwen3 235B-A22B"
OSS = "gpt-oss 120B"
_ACT = {"recompute_granularity": "selective", "recompute_modules": ["moe_act"]}
_OSS: dict[str, Any] = {"pipeline": 4, "expert": 8, "training": _ACT}
# 94 layers among 32 chunks
_Q235: dict[str, Any] = {
    "tensor": 2,
    "pipeline": 8,
    "virtual": 4,
    "chunks": "Et*2|(t*3|)*30t*2L",
    "overlap": False,
}
_EP32 = _Q235 | {"expert": 32}
_PP2EP8: dict[str, Any] = {"pipeline": 2, "expert": 8, "dispatch_overlap": True}
_OVERLAP_EP32 = _EP32 | {"dispatch_overlap": True}
_BRIDGE = "Bridge 08/2026"
EXPERT_RUNS = [
    seconds_run(_BRIDGE, Q30, 45.65, "bf16 16 1024 x 4096", expert=16),
    tokens_run("Bridge 25.11", OSS, 5630, "bf16 64 512 x 4096", micro=4, **_OSS),
    tokens_run("Bridge 26.04.01", OSS, 5824, "bf16 64 1280 x 4096", **_OSS),
    tokens_run("Bridge 25.11", Q235, 1575, "FP8 256 2048 x 4096", **_OVERLAP_EP32),
    tokens_run(
        "Bridge 26.04.01", Q235, 1712, "FP8 256 8192 x 4096", dispatch_overlap=True, **_EP32
    ),
    seconds_run(
        "Model zoo",
        Q235,
        24.2,
        "bf16 256 2048 x 4096",
        tensor=2,
        pipeline=32,
        virtual=3,
        expert=8,
        chunks="E|(t|)*94L",
        training=_ACT,
        overlap=False,
    ),
]
"""Mixtures of experts with the alltoall dispatcher."""
SLOW_EXPERT_RUNS = [
    tokens_run("Bridge 25.11", Q30, 5275, "FP8 16 512 x 4096", micro=2, virtual=24, **_PP2EP8),
    tokens_run("Bridge 26.02", Q30, 5113, "FP8 16 1024 x 4096", virtual=12, **_PP2EP8),
]
"""With alltoall in FP8; the next release replaced it by DeepEP and was 77% faster."""
OTHER_DISPATCHERS = [
    tokens_run("Bridge 26.02.01, DeepEP", Q30, 9058, "FP8 16 1024 x 4096", virtual=12, **_PP2EP8),
    tokens_run("Bridge 26.04.01, HybridEP", Q30, 8960, "FP8 16 1024 x 4096", expert=16),
    seconds_run(f"{_BRIDGE}, HybridEP", Q30, 24.71, "bf16 16 1024 x 4096", expert=16),
    seconds_run(
        f"{_BRIDGE}, HybridEP",
        Q30,
        20.147,
        "bf16 16 1024 x 4096",
        expert=16,
        dispatch_overlap=True,
    ),
    seconds_run("Model zoo, DeepEP", Q235, 19.7, "bf16 256 2048 x 4096", training=_ACT, **_EP32),
    seconds_run(
        "Model zoo, DeepEP",
        Q235,
        29.0,
        "bf16 256 2048 x 4096",
        **(_Q235 | {"tensor": 4, "expert": 8}),
    ),
    seconds_run("NeMo AutoModel, DeepEP", Q30, 21.773, "bf16 8 512 x 4096", micro=4, expert=8),
]
"""Dispatchers that Galen lacks, planned as alltoall; the last also with another engine (FSDP)."""
