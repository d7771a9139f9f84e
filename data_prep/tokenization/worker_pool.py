"""The tokenizing processes: blocks are dispatched to them and ids come back, in order.

A worker may be killed at any moment (by the system, for lack of memory). So each has connections of
its own, and it alone holds their child ends: when it dies, even in the middle of an answer, reading
from the parent ends fails. No lock or queue is shared.
"""

import gc
import resource
import signal
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from data_prep.tokenization.input_blocks import Block
from data_prep.tokenization.shared_memory import SharedIds, view_shared
from data_prep.tokenization.worker import Result, Task, work
from galen.errors import DataError
from galen.worker import exit_with_parent

BLOCK_BYTES = 2 << 20
TOTAL_BLOCK_BYTES = 16 << 20
"""Total size of all workers' blocks.

With more than 8 workers the blocks are smaller, so that their memory does not grow.
"""
MIN_BLOCK_BYTES = 1 << 18
CONNECTIONS = 2
"""Of a worker: while it works on a block from one, its next block waits in the other."""


class TokenPool:
    """Worker processes, forked before this one starts threads, that share the loaded tokenizer."""

    def __init__(self, task: Task, workers: int) -> None:
        self._ahead = 2 * workers + 2
        """Blocks in progress at a time, besides the one whose result is in use."""
        self.block_bytes = min(BLOCK_BYTES, max(TOTAL_BLOCK_BYTES // workers, MIN_BLOCK_BYTES))
        self._buffers = SharedIds(self._ahead + 1, 2 * self.block_bytes, task.dtype)
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[tuple[_Worker, Connection]] = SimpleQueue()
        gc.collect()
        gc.freeze()  # the collector would write to, and so copy, what is shared
        _raise_file_limit()
        self._workers = [_start_worker(task, self._buffers) for _ in range(workers)]
        # the first connection of each worker before any second one
        for number in range(CONNECTIONS):
            for worker in self._workers:
                self._idle.put((worker, worker.connections[number]))
        self._threads = ThreadPoolExecutor(CONNECTIONS * workers)

    def __enter__(self) -> "TokenPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()  # it has nothing to clean up, and the waiting threads end
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.process.join()
        gc.unfreeze()

    def run(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Result]]:
        """Yield each block and its result, in order, while the processes work a few blocks ahead.

        The ids of a result are views of a shared buffer: valid until the next result is requested.

        Raises:
            DataError: a block's file cannot be read, or a worker ended.
        """
        pending: deque[_Pending] = deque()
        for number, block in enumerate(blocks):
            buffer = number % (self._ahead + 1)
            future = self._threads.submit(self._dispatch, block, buffer)
            pending.append(_Pending(replace(block, data=None), buffer, future))
            if len(pending) > self._ahead:
                yield self._result(pending.popleft())
        while pending:
            yield self._result(pending.popleft())

    def _result(self, pending: "_Pending") -> tuple[Block, Result]:
        try:
            result = pending.future.result()
        except WorkerDied as error:
            raise DataError(describe_exit(error.process)) from None
        view_shared(result.outputs, result.shared, self._buffers.buffer(pending.buffer))
        return pending.block, result

    def _dispatch(self, block: Block, buffer: int) -> Result:
        """In a thread: send a block to an idle worker and wait for its answer.

        Raises:
            WorkerDied: the worker ended.
        """
        worker, connection = self._idle.get()
        try:
            connection.send((block, buffer))
            answer: Result | Exception = connection.recv()
        except (EOFError, OSError):
            raise WorkerDied(worker.process) from None
        finally:
            self._idle.put((worker, connection))
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connections: list[Connection]
    """This process's ends."""


@dataclass(slots=True)
class _Pending:
    """A block in progress."""

    block: Block
    """Without its data."""
    buffer: int
    """Number of its shared buffer."""
    future: Future[Result]


class WorkerDied(Exception):
    """A worker process ended before it answered."""

    def __init__(self, process: BaseProcess) -> None:
        super().__init__()
        self.process = process


def describe_exit(process: BaseProcess) -> str:
    """Return how a worker process ended, and what to do."""
    process.join()
    code = process.exitcode or 0
    reason = f"ended with code {code}"
    if code < 0:
        reason = f"was ended by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        reason += ", perhaps for lack of memory: try fewer --workers"
    return f"a worker {reason}; start the same command again to resume"


def _raise_file_limit() -> None:
    """Raise the limit of open files: a worker takes four, and the usual limit is 1,024."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _start_worker(task: Task, buffers: SharedIds) -> _Worker:
    context = get_context("fork")
    parent_conns: list[Connection] = []
    child_conns: list[Connection] = []
    for _ in range(CONNECTIONS):
        parent_conn, child_conn = context.Pipe()
        parent_conns.append(parent_conn)
        child_conns.append(child_conn)
    process = context.Process(target=_serve, args=(task, buffers, child_conns), daemon=True)
    process.start()
    for child_conn in child_conns:
        child_conn.close()  # before the next worker could inherit it
    return _Worker(process, parent_conns)


def _serve(task: Task, buffers: SharedIds, connections: list[Connection]) -> None:
    """In a worker: answer each block with its result or an error, until the process is killed."""
    exit_with_parent()
    while True:
        for connection in wait(connections):
            assert isinstance(connection, Connection)
            block, number = connection.recv()
            try:
                answer: Result | Exception = work(task, block, buffers.buffer(number))
            except Exception as error:
                error.add_note(traceback.format_exc())  # a traceback does not go through a pipe
                answer = error
            connection.send(answer)
