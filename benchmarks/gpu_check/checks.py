"""The checks of each stage: what they run, how long they take, and what they need."""

import dataclasses
from collections.abc import Callable
from typing import Any

STAGES = {
    "environment": "GPUs, versions and compilers; what is missing, and what it disables",
    "loss_curves": (
        "bf16 and FP8 (delayed, tensorwise, blockwise) train as fp32 does, a mixture of experts too"
    ),
    "end_to_end": (
        "a small model is imported, trained (packed documents, FP8 weights, asynchronous"
        " checkpoints), killed, resumed with the same losses, exported and verified"
    ),
    "parallel": (
        "several GPUs: bandwidth of NCCL; TP with sequence parallelism, PP, CP over packed"
        " documents and userbuffers give the losses of one GPU"
    ),
    "throughput": (
        "tokens/s, MFU, memory and the ten slowest operations of a 1B model and Llama 3 8B in bf16"
        " and FP8, beside the plan and published figures"
    ),
}
"""Stages in their order: the cheap ones, and those most likely to fail, come first."""
_CPU_SECONDS = 10
WORK = "{work}"
RESULT = "{result}"
"""In a command: the check's working folder, and the file for its figures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A command that proves one thing."""

    stage: str
    name: str
    command: tuple[str, ...]
    """A script or -m MODULE, with its arguments."""
    seconds: int
    """Expected duration on an H200, with imports and compilation."""
    limit: int
    """Seconds after which it is ended."""
    ranks: int = 1
    """Processes, one for each GPU."""
    needs: tuple[str, ...] = ()
    """Checks, as STAGE/NAME, whose output it reads."""
    requires: tuple[str, ...] = ()
    """Features that the environment must support."""
    products: tuple[str, ...] = ()
    """Paths in the working folder that later checks read."""
    alone: bool = False
    """Whether nothing else may run meanwhile, since it measures time."""

    @property
    def id(self) -> str:
        """Stage and name."""
        return f"{self.stage}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of the models, for GPUs or for a test on CPUs."""

    gpus: int
    """GPUs, or processes on CPUs."""
    cpu: bool
    fp8: str
    """FP8 recipe of the end-to-end model; empty if there is none."""
    transformer_engine: bool


def all_checks(scale: Scale) -> list[Check]:
    """Return the checks of all stages but the environment, in their order."""
    checks = [
        *_loss_curves(scale),
        *_end_to_end(scale),
        *_parallel(scale),
        *_throughput(scale),
    ]
    if scale.cpu:  # the models are tiny
        checks = [dataclasses.replace(check, seconds=_CPU_SECONDS) for check in checks]
    return checks


def environment(platform: str) -> Check:
    """Return the first stage's check."""
    command = ("benchmarks/gpu_environment.py", "--platform", platform, "--output", RESULT)
    seconds = _CPU_SECONDS if platform == "cpu" else 25
    return Check(
        stage="environment", name="environment", command=command, seconds=seconds, limit=120
    )


def _loss_curves(scale: Scale) -> list[Check]:
    size = ("--size", "tiny", "--steps", "6") if scale.cpu else ("--steps", "50")

    def check(variant: str, **options: Any) -> Check:
        folder = f"{WORK}/loss_curves"
        command = (
            *("benchmarks/loss_curves.py", "--variant", variant.replace("_", " "), "--work"),
            *(folder, "--output", RESULT, *size),
        )
        return Check(stage="loss_curves", name=variant, command=command, limit=120, **options)

    curves = [
        check("fp32", seconds=30, products=("loss_curves/weights.pt", "loss_curves/fp32.json"))
    ]
    for variant in ("bf16", "fp8_delayed", "fp8_tensorwise", "fp8_blockwise"):
        requires = () if variant == "bf16" else (variant,)
        curves.append(check(variant, seconds=40, needs=("loss_curves/fp32",), requires=requires))
    return curves if scale.cpu else [*curves, *_experts(check)]


def _experts(check: Callable[..., Check]) -> list[Check]:
    """Return the loss curves of a mixture of experts: grouped GEMMs, fused permutation."""
    products = ("loss_curves/experts_weights.pt", "loss_curves/experts_fp32.json")
    needs = ("loss_curves/experts_fp32",)
    fp8 = ("fp8_tensorwise",)
    return [
        check("experts_fp32", seconds=35, products=products),
        check("experts_bf16", seconds=40, needs=needs),
        check("experts_fp8_tensorwise", seconds=45, needs=needs, requires=fp8),
    ]


def _end_to_end(scale: Scale) -> list[Check]:
    sizes = ("--size", "tiny") if scale.cpu else ("--size", "small")
    precision = ("--fp8", scale.fp8) if scale.fp8 else ()
    script = "benchmarks/gpu_check/end_to_end.py"
    stage = "end_to_end"
    verify = ("--weights-only",) if scale.cpu else ()
    checkpoints = f"{WORK}/run/checkpoints"
    return [
        Check(
            stage=stage,
            name="inputs",
            command=(script, "inputs", "--work", WORK, *sizes),
            seconds=15,
            limit=90,
            products=("model/config.json", "tokens/documents_text_document.idx"),
        ),
        Check(
            stage=stage,
            name="import",
            command=(
                *("checkpoints_convert/hf_to_megatron.py", "--hf", f"{WORK}/model"),
                *("--output", f"{WORK}/megatron"),
            ),
            seconds=15,
            limit=90,
            needs=("end_to_end/inputs",),
            products=("megatron",),
        ),
        Check(
            stage=stage,
            name="pretrain_and_kill",
            command=(script, "kill", "--work", WORK, "--output", RESULT, *sizes, *precision),
            seconds=45,
            limit=180,
            needs=("end_to_end/import",),
            products=("killed_run", "killed.json"),
        ),
        Check(
            stage=stage,
            name="resume",
            command=(script, "resume", "--work", WORK, "--output", RESULT, *sizes, *precision),
            seconds=45,
            limit=180,
            needs=("end_to_end/pretrain_and_kill",),
            products=("run/manifest.json",),
        ),
        Check(
            stage=stage,
            name="export",
            command=(
                *("checkpoints_convert/megatron_to_hf.py", "--megatron", checkpoints),
                *("--output", f"{WORK}/exported"),
            ),
            seconds=15,
            limit=90,
            needs=("end_to_end/resume",),
            products=("exported",),
        ),
        Check(
            stage=stage,
            name="verify",
            command=(
                *("checkpoints_convert/verify.py", "--hf", f"{WORK}/exported"),
                *("--megatron", checkpoints, *verify),
            ),
            seconds=30,
            limit=120,
            needs=("end_to_end/export",),
        ),
    ]


def _parallel(scale: Scale) -> list[Check]:
    sizes = ("--size", "tiny") if scale.cpu else ("--size", "small")
    script = "benchmarks/gpu_check/layouts.py"

    def layout(name: str, ranks: int, **options: Any) -> Check:
        command = (script, "--layout", name, "--work", WORK, "--output", RESULT, *sizes)
        needs: tuple[str, ...] = ("end_to_end/import",)
        if name != "reference":
            needs = (*needs, "parallel/reference")
        settings: dict[str, Any] = {
            "seconds": 40,
            "limit": 180,
            "needs": needs,
            "requires": () if ranks == 1 else (f"{ranks}_gpus",),
            # collectives of several runs on one GPU would wait for each other
            "alone": ranks > 1,
        }
        return Check(
            stage="parallel", name=name, command=command, ranks=ranks, **(settings | options)
        )

    bandwidth = Check(
        stage="parallel",
        name="bandwidth",
        command=(
            *("benchmarks/gpu_check/bandwidth.py", "--output", RESULT),
            *("--mebibytes", "1" if scale.cpu else "1024"),
        ),
        ranks=max(2, scale.gpus),
        seconds=25,
        limit=90,
        requires=("2_gpus",),
        alone=True,
    )
    layouts = [
        bandwidth,
        layout("reference", 1, requires=("2_gpus",), products=("parallel/reference.json",)),
        layout("tp_sp", 2),
        layout("pp", 2),
        layout("cp", 2),
    ]
    if not scale.cpu:
        layouts.append(
            layout("tp_userbuffers", 2, requires=("2_gpus", "transformer_engine"), seconds=60)
        )
        layouts.append(layout("tp_pp_cp", 8))
    return layouts


def _throughput(scale: Scale) -> list[Check]:
    def check(model: str, precision: str, *options: str, **figures: Any) -> Check:
        command = (
            *("benchmarks/train_gpu.py", "--model", model, "--precision", precision),
            *("--profile", "--output", RESULT, *options),
        )
        requires = ("fp8_tensorwise",) if precision == "fp8" else ()
        return Check(
            stage="throughput",
            name=f"{model}_{precision}",
            command=command,
            ranks=scale.gpus,
            requires=requires,
            alone=True,
            **figures,
        )

    if scale.cpu:
        tiny = ("--layers", "2", "--fit", "--warm-up", "1", "--steps", "2")
        return [check("tiny", "fp32", *tiny, seconds=10, limit=120)]
    steps: tuple[str, ...] = ("--warm-up", "3", "--steps", "8")
    batch = f"training.global_batch_size={4 * scale.gpus}"
    if scale.gpus > 1:
        steps += ("parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true")
    small = {"seconds": 60, "limit": 150}
    large = {"seconds": 110, "limit": 270}
    fit = ("--fit", "--lean") if scale.transformer_engine else ("--fit",)
    return [
        check("llama_1b", "fp8", *steps, batch, **small),
        check("llama_1b", "bf16", *steps, batch, **small),
        check("llama_3_8b", "fp8", *steps, *fit, batch, **large),
        check("llama_3_8b", "bf16", *steps, *fit, batch, **large),
    ]
