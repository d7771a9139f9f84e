"""Replies of an endpoint on disk, one JSON line each, flushed at once: nothing is asked twice."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from galen.errors import DataError

NAME = "requests.jsonl"
"""The endpoint's replies, in the output folder."""


@dataclass(slots=True)
class Usage:
    """What an endpoint counted."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    """Those of the completion tokens that are hidden thinking."""
    without_usage: int = 0
    """Replies that do not count tokens."""
    truncated: int = 0
    """Answers that max_tokens ended."""
    empty: int = 0
    """Answers without text, such as refusals."""
    served_models: set[str] = field(default_factory=set)
    """The models that the endpoint names in its replies."""

    def add(self, record: dict[str, Any]) -> None:
        """Count a reply."""
        usage = record.get("usage") or {}
        self.requests += 1
        self.retries += record.get("retries", 0)
        self.prompt_tokens += _count(usage, "prompt_tokens")
        self.completion_tokens += _count(usage, "completion_tokens")
        details = usage.get("completion_tokens_details")
        if isinstance(details, dict):
            self.reasoning_tokens += _count(details, "reasoning_tokens")
        self.without_usage += not isinstance(usage.get("prompt_tokens"), int)
        self.truncated += bool(record.get("truncated"))
        self.empty += bool(record.get("empty"))
        if record.get("served_model"):
            self.served_models.add(record["served_model"])

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for `results.json`."""
        counts = {name: getattr(self, name) for name in self.__slots__}
        return counts | {"served_models": sorted(self.served_models)}


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def key(path: str, body: dict[str, Any]) -> str:
    """Return the key of a request: a hash of its route and its content."""
    content = json.dumps([path, body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


class RequestLog:
    """The replies to all requests of a run; threads may use it.

    Opening reads the existing ones and drops the half line that a kill leaves at the end.

    Raises:
        DataError: a complete line is no reply.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._replies: dict[str, Any] = {}
        self.usage = Usage()
        self._file = path.open("a+b")
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
            try:
                record = orjson.loads(line)
                self._replies[record["key"]] = record["reply"]
                self.usage.add(record)
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                raise DataError(
                    f"{path}, line {number}: not a reply of the endpoint; remove the line, and the"
                    " request is sent again"
                ) from None

    def __contains__(self, request: str) -> bool:
        return request in self._replies

    def get(self, request: str) -> Any:
        """Return the reply to a request; None if there is none yet."""
        return self._replies.get(request)

    def append(self, request: str, reply: Any, **record: Any) -> None:
        """Write and flush a reply, with what is counted of it."""
        record = {"key": request, "reply": reply, **record}
        with self._lock:
            self._file.write(orjson.dumps(record) + b"\n")
            self._file.flush()
            self._replies[request] = reply
            self.usage.add(record)
