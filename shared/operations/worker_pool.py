"""A bounded pool of worker threads for long work, with a bounded queue.

Threads exist only while there is work: one is started per job up to the limit,
takes queued jobs as long as there are any, and ends. The pool joins them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar

from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import ProcessStoppingError, ResourceExhaustedError

logger = logging.getLogger("ktrdr.workers")


@dataclass(frozen=True, slots=True)
class Job:
    """Work for one thread; a cancelled one that still queues is dropped."""

    run: Callable[[], None]
    """Must not raise."""
    cancel: CancelSignal


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """How much a pool has to do."""

    workers: int
    """That there may be."""
    busy: int
    queued: int


class WorkerPool:
    """Runs jobs on at most `workers` threads and queues at most `queue_limit` more."""

    def __init__(self, name: str, *, workers: int, queue_limit: int) -> None:
        self.name = name
        self._workers = workers
        self._queue_limit = queue_limit
        self._lock = threading.Lock()  # guards everything below
        self._queue: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._reserved = 0
        self._started = 0
        self._closed = False

    def load(self) -> PoolLoad:
        """How many workers there may be and are, and how many jobs wait for one."""
        with self._lock:
            queued = sum(not job.cancel.requested for job in self._queue)
            return PoolLoad(self._workers, len(self._threads), queued)

    def reserve(self) -> None:
        """Take a place for a job, to be given to `submit` or back by `release`.

        Raises ResourceExhaustedError if all workers are busy and the queue is
        full, ProcessStoppingError once the pool is closed.
        """
        with self._lock:
            self._refuse_if_closed()
            self._queue = deque(job for job in self._queue if not job.cancel.requested)
            taken = len(self._threads) + len(self._queue) + self._reserved
            if taken >= self._workers + self._queue_limit:
                raise ResourceExhaustedError(
                    f"All {self._workers} {self.name} workers are busy and the queue of "
                    f"{self._queue_limit} is full. Wait for an operation to end or cancel one.",
                    reason="WORKERS_BUSY",
                    retry_after=5.0,
                    metadata={"workers": str(self._workers), "queued": str(len(self._queue))},
                )
            self._reserved += 1

    def release(self) -> None:
        """Give back a place that will not be used."""
        with self._lock:
            self._reserved -= 1

    def submit(self, job: Job) -> None:
        """Hand in the job for a place that was reserved.

        Raises ProcessStoppingError once the pool is closed. If it raises, the
        place is still to be given back.
        """
        with self._lock:
            self._refuse_if_closed()
            if len(self._threads) < self._workers:
                self._start(job)
            else:
                self._queue.append(job)
            self._reserved -= 1

    def _start(self, job: Job) -> None:
        """Start a thread for the job; it is on the books only if that succeeds."""
        self._started += 1
        name = f"{self.name}-{self._started}"
        thread = threading.Thread(target=self._work, args=(job,), name=name, daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:  # whatever it is, a thread that does not run takes no place
            self._threads.discard(thread)
            raise

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ProcessStoppingError(
                f"The {self.name} workers take on nothing more: the process is shutting down. "
                "Try another process, or this one once it is up again."
            )

    def close(self) -> None:
        """Take no more jobs and forget the queued ones; running ones go on."""
        with self._lock:
            self._closed = True
            self._queue.clear()

    def join(self, timeout: float) -> bool:
        """Wait for the running jobs to end; False if some have not in `timeout` seconds."""
        end = monotonic() + timeout
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, end - monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _work(self, job: Job | None) -> None:
        while job is not None:
            if not job.cancel.requested:
                try:
                    job.run()
                except BaseException:  # whatever it is, the thread goes on with the next job
                    logger.exception("A %s job raised", self.name)
            job = self._next()

    def _next(self) -> Job | None:
        """The next job; None, and the thread is off the books, if there is none."""
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            self._threads.discard(threading.current_thread())
            return None


@dataclass(frozen=True, slots=True)
class PoolLaunch:
    """The launch of work on a pool's workers: a `Launch`."""

    elsewhere: ClassVar[bool] = False
    pool: WorkerPool
    hand_in: Callable[[str], None]
    """Registers the source of the operation that it is given, then submits the job."""

    def reserve(self) -> None:
        """Take a worker or a place in the queue."""
        self.pool.reserve()

    def begin(self, operation_id: str) -> None:
        """Hand in the work."""
        self.hand_in(operation_id)

    def release(self) -> None:
        """Give the place back."""
        self.pool.release()
