"""Requests (PLAN arrays) -> RawBatches in the same order, read ahead by threads into buffers that are used again.

    requests --(one thread at a time)--> Payload --rows, by all threads--> done --in order--> consumer
                                           ^-- a spare buffer <-- released <--------------------'

Threads, not processes: a batch handed over by a DataLoader worker costs many times what reading it costs, and preadv
and the decoders leave the interpreter to others.
"""

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from numpy.typing import NDArray

from dist_train.payload import Buffer, Payload, RawBatch, Waitable
from dist_train.storage import Source

__all__ = ["RawBatch", "Reader"]

PORTION = 8  # rows, at least, that a thread takes at a time
JOIN_SECONDS = 2.0


class Reader:
    """An iterator of RawBatches, one a request, in order; `depth` of them are read ahead of the consumer.

    A batch's `data` is the reader's: it stays as it is until the batch is released, or until `depth` more batches were
    taken. Then it is written to again, on CUDA only after what the consumer's current stream had been given by then.
    At most 2 * depth buffers exist, each as large as the largest batch it held.
    An exception of a thread or of `requests` is raised here, after the batches before it. `close`, or dropping the
    reader, stops the threads.
    """

    def __init__(
        self, files: Source, requests: Iterator[NDArray[Any]], threads: int = 1, depth: int = 2, pin: bool = False
    ) -> None:
        self._ring = Ring(files, requests, threads, depth, pin and torch.cuda.is_available())
        # The threads know the ring only, so that a reader that nobody holds any more can stop them.
        self._close = weakref.finalize(self, self._ring.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RawBatch:
        try:
            batch = self._ring.take()
        except Exception:
            self.close()
            raise
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; may be called at any time, again too, and waits at most seconds for a read that hangs."""
        self._close()


@dataclass(eq=False)
class Job:
    """A request's place in the line. `left`: its rows not yet read; `error`: raised where its batch would come."""

    payload: Payload | None
    left: int = 0
    taken: int = 0
    seconds: float = 0.0
    done: tuple[torch.Tensor, list[tuple[int, str]]] | None = None  # data and bad rows, when all is read and mended
    error: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Whether the consumer may have it."""
        return self.done is not None or self.error is not None


class Ring:
    """What the threads share. `source` guards the requests and the handing out of rows, `turn` everything else."""

    def __init__(self, files: Source, requests: Iterator[NDArray[Any]], threads: int, depth: int, pin: bool) -> None:
        assert threads >= 1 and depth >= 1
        # Threads that wait on a network do no work: one takes a whole batch, as many as may be ahead at once.
        self.portion, threads = (sys.maxsize, max(threads, depth)) if files.far else (PORTION, threads)
        self.files, self.requests, self.depth, self.pin = files, iter(requests), depth, pin
        self.device = torch.cuda.current_device() if pin else None
        self.source, self.turn = threading.Lock(), threading.Condition()
        self.ahead: deque[Job] = deque()  # in order, not yet taken
        self.held: deque[tuple[RawBatch, Buffer]] = deque()  # taken, not yet released
        self.spare: list[Buffer] = []
        self.job: Job | None = None  # whose rows are being handed out
        self.ended = self.closed = False
        self.threads = [threading.Thread(target=self.work, name=f"reader-{i}", daemon=True) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def work(self) -> None:
        """A thread's life: take rows, read them; who reads a job's last rows mends and shows it."""
        if self.device is not None:
            torch.cuda.set_device(
                self.device
            )  # a thread starts on GPU 0: pinning would open every rank a context there
        while (portion := self._portion()) is not None:
            job, begin, end = portion
            assert job.payload is not None
            started = time.perf_counter()
            done, error = None, None
            try:
                job.payload.read(begin, end)
                with self.turn:
                    job.left -= end - begin
                    last = not job.left
                if last:
                    done = job.payload.mend()
            except BaseException as problem:
                error = problem
            with self.turn:
                job.seconds += time.perf_counter() - started
                job.done, job.error = done or job.done, job.error or error
                if job.ready:  # each needless waking of the consumer costs it tens of microseconds
                    self.turn.notify_all()

    def _portion(self) -> tuple[Job, int, int] | None:
        """A job and which of its rows to read; None: there is no more to do."""
        with self.source:
            while self.job is None or self.job.taken == self._rows(self.job):
                self.job = self._next_job()
                if self.job is None:
                    return None
                if not self._rows(self.job):
                    return self.job, 0, 0
            job, rows = self.job, self._rows(self.job)
            begin = job.taken
            job.taken = min(rows, begin + max(self.portion, -(-rows // len(self.threads))))
            return job, begin, job.taken

    @staticmethod
    def _rows(job: Job) -> int:
        assert job.payload is not None
        return len(job.payload.order)

    def _next_job(self) -> Job | None:
        """The next request, once there is room for its batch."""
        with self.turn:
            self.turn.wait_for(lambda: self.closed or self.ended or len(self.ahead) < self.depth)
            if self.closed or self.ended:
                return None
            buffer = self.spare.pop() if self.spare else Buffer(self.pin)
        job = None
        try:
            request = next(self.requests, None)
            if request is not None:
                job = Job(payload := Payload(request, buffer, self.files), left=len(payload.order))
        except BaseException as error:
            job = Job(None, error=error)
        with self.turn:
            if job is not None:
                self.ahead.append(job)
            self.ended = job is None or job.error is not None
            if self.ended:
                self.turn.notify_all()
            return None if self.ended else job

    def take(self) -> RawBatch | None:
        """The next batch; None after the last or when closed. Raises what went wrong in its place."""
        with self.turn:
            self.turn.wait_for(lambda: self.closed or (self.ahead[0].ready if self.ahead else self.ended))
            if self.closed or not self.ahead:
                return None
            job = self.ahead.popleft()
            if job.error is not None:
                raise job.error
            assert job.payload is not None and job.done is not None
            while len(self.held) >= self.depth:
                self._free(*self.held.popleft(), self._now())
            batch = RawBatch(job.payload.plan, *job.done, job.seconds, self.release)
            self.held.append((batch, job.payload.buffer))
            self.turn.notify_all()
            return batch

    def release(self, batch: RawBatch, after: Waitable | None) -> None:
        """Take a batch's buffer back; of no effect the second time."""
        with self.turn:
            for place, (one, buffer) in enumerate(self.held):
                if one is batch:
                    del self.held[place]
                    self._free(one, buffer, after)
                    return

    def _free(self, batch: RawBatch, buffer: Buffer, after: Waitable | None) -> None:
        batch.on_release, buffer.after = None, after
        self.spare.append(buffer)

    def _now(self) -> Waitable | None:
        """Copies from pinned memory run after the call that asked for them: they must end before it is written to."""
        if not self.pin:
            return None
        event: Waitable = torch.cuda.current_stream().record_event()
        return event

    def close(self) -> None:
        """Stop the threads and forget everything."""
        with self.turn:
            self.closed = True
            self.turn.notify_all()
        until = time.monotonic() + JOIN_SECONDS
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        with self.turn:
            self.ahead.clear()
            self.held.clear()
            self.spare.clear()
