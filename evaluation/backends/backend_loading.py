"""The backend that a command's options select, with its model loaded."""

from pathlib import Path

from evaluation.backends.base import Backend
from evaluation.backends.endpoint import Endpoint
from evaluation.backends.openai_backend import OpenAIBackend


def load(
    name: str,
    model: Path,
    *,
    folder: Path,
    endpoint: Endpoint | None = None,
    adapter: Path | None = None,
    dtype: str | None = None,
    device: str | None = None,
    tensor_parallel: int = 1,
) -> Backend:
    """Return a backend.

    Args:
        name: transformers, vllm or openai.
        model: Hugging Face folder; not read where an endpoint has the model.
        folder: for the replies of an endpoint.
        endpoint: the model at an endpoint.
        adapter: PEFT adapter on top of the model.
        dtype: precision of the weights; None for the device's default.
        device: for example cuda:0; None for CUDA if available.
        tensor_parallel: GPUs that share the model, with vllm.

    Raises:
        DataError, UsageError: the model cannot be loaded, or the device does not exist.
    """
    if endpoint is not None:
        return OpenAIBackend(endpoint, folder)
    if name == "vllm":
        from evaluation.backends.vllm_backend import VllmBackend

        return VllmBackend(model, adapter, dtype, tensor_parallel)
    from evaluation.backends.transformers_backend import TransformersBackend

    return TransformersBackend(model, adapter, dtype, device)
