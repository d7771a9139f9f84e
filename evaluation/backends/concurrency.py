"""Requests to an endpoint in several threads."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def concurrently(
    function: Callable[[int], Any], items: Sequence[int], num_threads: int
) -> Iterator[tuple[int, Any]]:
    """Yield each item with its result, as soon as it is there; the first error is raised.

    After an error, or when the caller stops, no further items are begun. The threads do not keep
    the process alive.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    results: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((item, function(item), None))
            except BaseException as error:  # raised by the caller's thread
                results.put((item, None, error))

    threads = [
        threading.Thread(target=work, daemon=True) for _ in range(min(num_threads, len(items)))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in items:
            item, result, error = results.get()
            if error is not None:
                raise error
            yield item, result
    finally:
        stop.set()
