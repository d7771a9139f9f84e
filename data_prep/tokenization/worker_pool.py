"""The tokenising processes: blocks go out to them and ids come back, in order.

A worker may be killed at any moment (by the system, for lack of memory). So each has pipes of its
own, of which it alone holds the far ends: whatever it was doing, even when half an answer was
through, the near ends then tell that it is gone. No lock or queue is shared.
"""

import gc
import resource
import signal
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from data_prep.tokenization.input_blocks import Block
from data_prep.tokenization.shared_memory import SharedIds, take
from data_prep.tokenization.worker import Result, Task, work
from galen.errors import DataError
from galen.worker import exit_with_parent

BLOCK_BYTES = 2 << 20
BLOCK_BYTES_OF_ALL = 16 << 20
"""Total size of all workers' blocks.

With more than 8 workers the blocks are smaller, so that their memory does not grow.
"""
PIPES = 2
"""Of a worker: while it is at a block from one, its next block waits in the other."""


class TokenPool:
    """Worker processes, forked before this one starts threads, that share the loaded tokenizer."""

    def __init__(self, task: Task, workers: int) -> None:
        self._ahead = 2 * workers + 2
        self.block_bytes = min(BLOCK_BYTES, max(BLOCK_BYTES_OF_ALL // workers, 1 << 18))
        self._buffers = SharedIds(self._ahead + 1, 2 * self.block_bytes, task.dtype)
        gc.collect()
        gc.freeze()  # the collector would write to, and so copy, what is shared
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        # a worker takes four, and the usual limit is 1,024
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        fork = get_context("fork")
        self._processes: list[BaseProcess] = []
        self._idle: SimpleQueue[tuple[BaseProcess, Connection]] = SimpleQueue()
        near_ends = []
        for _ in range(workers):
            near, far = zip(*(fork.Pipe() for _ in range(PIPES)), strict=True)
            process = fork.Process(target=_serve, args=(task, self._buffers, far), daemon=True)
            process.start()
            for pipe in far:
                pipe.close()  # before the next worker could inherit it
            self._processes.append(process)
            near_ends.append([(process, pipe) for pipe in near])
        # a first pipe of each worker before any second one
        for pair in zip(*near_ends, strict=True):
            for idle in pair:
                self._idle.put(idle)
        self._threads = ThreadPoolExecutor(PIPES * workers)

    def __enter__(self) -> "TokenPool":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()  # it has nothing to tidy up, and the threads that wait for it end
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.join()
        gc.unfreeze()

    def run(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Result]]:
        """Yield each block and its result, in order, while the processes work a few blocks ahead.

        A result's ids lie in a shared buffer: they are good until the next one is asked for.

        Raises:
            DataError: a block's file cannot be read, or a worker ended.
        """
        waiting: deque[tuple[Block, int, Future[Result]]] = deque()
        for number, block in enumerate(blocks):
            buffer = number % (self._ahead + 1)
            waiting.append(
                (
                    replace(block, data=None),
                    buffer,
                    self._threads.submit(self._hand_over, block, buffer),
                )
            )
            if len(waiting) > self._ahead:
                yield self._result(*waiting.popleft())
        while waiting:
            yield self._result(*waiting.popleft())

    def _result(self, block: Block, buffer: int, future: Future[Result]) -> tuple[Block, Result]:
        try:
            result = future.result()
        except _Gone as gone:
            raise DataError(_how_it_ended(gone.process)) from None
        take(result.outputs, result.shared, self._buffers.buffer(buffer))
        return block, result

    def _hand_over(self, block: Block, buffer: int) -> Result:
        """In a thread: give a block to a worker and wait for its answer."""
        process, pipe = self._idle.get()
        try:
            pipe.send((block, buffer))
            answer: Result | Exception = pipe.recv()
        except (EOFError, OSError):
            raise _Gone(process) from None
        finally:
            self._idle.put((process, pipe))
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Gone(Exception):
    def __init__(self, process: BaseProcess) -> None:
        self.process = process


def _how_it_ended(process: BaseProcess) -> str:
    process.join()
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    why = ", perhaps for lack of memory: try fewer --workers" if code == -signal.SIGKILL else ""
    return f"a worker {how}{why}; what is done stays: start the same command again to go on"


def _serve(task: Task, buffers: SharedIds, pipes: tuple[Connection, ...]) -> None:
    """In a worker: answer each block with its result or an error, until the process is killed."""
    exit_with_parent()
    while True:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)
            block, number = pipe.recv()
            try:
                answer: Result | Exception = work(task, block, buffers.buffer(number))
            except Exception as error:
                error.add_note(traceback.format_exc())  # a traceback does not go through a pipe
                answer = error
            pipe.send(answer)
