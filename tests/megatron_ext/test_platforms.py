"""Processes that cannot meet: one line that names the place."""

import socket

import pytest

from galen.errors import DataError, UsageError
from megatron_ext import platforms


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(DataError, match=rf"cannot meet the other processes at 127\.0\.0\.1, port {port} .*address already in use"):
            platforms.plain().init_distributed()


def test_half_a_description_of_the_processes_is_refused(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UsageError, match="RANK is set, MASTER_ADDR and MASTER_PORT not: start the run with torchrun"):
        platforms.plain().init_distributed()
