"""The Megatron side of verify.py: the logits of a checkpoint under a layout.

Started by verify.py, one process for each rank.

In --folder it reads `tokens.safetensors` and writes `logits.safetensors`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galen import cli

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from megatron_ext.config.architecture import Architecture


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder of the tokens and logits"
    )
    parser.add_argument("--megatron", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--iteration", type=int, help="iteration (default: the newest)")
    parser.add_argument("--tp", type=int, default=1, help="tensor-parallel size")
    parser.add_argument("--pp", type=int, default=1, help="pipeline-parallel size")
    parser.add_argument("--ep", type=int, default=1, help="expert-parallel size")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="precision")
    arguments = parser.parse_args(argv)

    import torch
    from safetensors.torch import load_file, save_file

    from megatron_ext import bootstrap

    bootstrap()

    # Megatron Core must be imported before the CPU platform stands in
    import megatron_ext.training.training_state  # noqa: F401
    from megatron_ext.checkpoint.checkpoint_folder import find_iteration
    from megatron_ext.config.architecture import read_architecture
    from megatron_ext.config.sections import Parallel
    from megatron_ext.hardware import parallel_groups, platforms

    folder = find_iteration(arguments.megatron, arguments.iteration)
    architecture = read_architecture(folder)
    tokens = load_file(arguments.folder / "tokens.safetensors")["tokens"]
    platforms.current_platform().init_distributed()
    parallel_groups.initialize(
        Parallel(
            tensor_model_parallel_size=arguments.tp,
            pipeline_model_parallel_size=arguments.pp,
            expert_model_parallel_size=arguments.ep,
            expert_tensor_parallel_size=_expert_tensor_parallel_size(architecture),
        ),
        seed=1,
    )
    layout = (arguments.tp, arguments.pp, arguments.ep)
    logits = compute(folder, architecture, tokens, *layout, arguments.dtype)
    if logits is not None:
        save_file(
            {"logits": logits.cpu().float().contiguous()}, arguments.folder / "logits.safetensors"
        )
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _expert_tensor_parallel_size(architecture: "Architecture") -> int | None:
    """Return 1 for experts with biases, which Megatron Core does not divide; None for the same."""
    return 1 if architecture.is_moe and architecture.add_bias_linear else None


def compute(
    folder: Path,
    architecture: "Architecture",
    tokens: "Tensor",
    tensor: int,
    pipeline: int,
    expert: int,
    dtype: str,
) -> "Tensor | None":
    """Return the logits [batch, sequence, padded vocabulary] (collective).

    Only the first rank of the last stage has them, the others get None.

    Args:
        folder: of the iteration.
        architecture: of the model.
        tokens: ids [batch, sequence]; under tensor parallelism the sequence is a multiple of its
            size.
        tensor: tensor-parallel size of the running layout.
        pipeline: its pipeline-parallel size.
        expert: its expert-parallel size.
        dtype: fp32 or bf16.
    """
    import torch
    from megatron.core import parallel_state

    from megatron_ext.hardware import platforms
    from megatron_ext.model.build import build_model
    from megatron_ext.training import training_state

    precision = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    platform = platforms.current_platform()
    model = build_model(
        platform,
        architecture,
        tokens.size(1),
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        expert_model_parallel_size=expert,
        expert_tensor_parallel_size=_expert_tensor_parallel_size(architecture),
        sequence_parallel=tensor > 1,
        params_dtype=precision,
        pipeline_dtype=precision,
        bf16=dtype == "bf16",
    ).eval()
    training_state.load_weights_from(model, folder)
    logits = _forward(model, tokens.to(platform.device))
    first = (
        parallel_state.is_pipeline_last_stage()
        and parallel_state.get_tensor_model_parallel_rank() == 0
        and parallel_state.get_data_parallel_rank() == 0
    )
    return logits if first else None


def _forward(model: "torch.nn.Module", tokens: "Tensor") -> "Tensor | None":
    """Return the gathered logits on the ranks of the last stage (collective)."""
    import torch
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

    positions = torch.arange(tokens.size(1), device=tokens.device).expand_as(tokens)
    gathered: list[torch.Tensor] = []

    def step(_: object, part: torch.nn.Module) -> Any:
        output = part(tokens, positions, None)

        def collect(output: torch.Tensor) -> Any:
            gathered.append(gather_from_tensor_model_parallel_region(output))
            return output.float().sum(), {}

        return output, collect

    with torch.no_grad():
        get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=None,
            model=[model],
            num_microbatches=1,
            seq_length=tokens.size(1),
            micro_batch_size=tokens.size(0),
            forward_only=True,
        )
    return gathered[0] if gathered else None


if __name__ == "__main__":
    cli.run(main)
