"""Stages of `make gpu-check`; `python benchmarks/gpu_check --help` describes them."""
