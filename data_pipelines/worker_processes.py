"""Batches made in processes of their own; one that the system kills is replaced.

A worker gets the functions that make a batch of a step, which are pure, and sends every n-th batch
through a pipe of its own. So a worker that is killed, even in the middle of a batch, ends the pipe
at once: nobody waits for it, and another one goes on from the same step with the same batches.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import cloudpickle

from data_pipelines.errors import InputError
from data_pipelines.read_ahead import InParts, read_ahead

_RUN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "import data_pipelines.worker_processes as workers; workers.work()"
)


def in_processes(
    batches: InParts, start: int, stop: int, *, workers: int, threads: int
) -> Iterator[dict[str, Any]]:
    """The batches of steps `start` to `stop`, in order, made by `workers` processes.

    Args:
        batches: goes to the workers as a pickle; functions and classes that can be imported by name
            are imported there.
        threads: of each worker.

    Raises:
        InputError: a worker was killed twice before it could make one batch.
        Exception: what a part raised in a worker, when its step's turn comes.
    """
    running = [
        _Worker(number, batches, range(start + number, stop, workers), threads)
        for number in range(min(workers, stop - start))
    ]
    try:
        for step in range(start, stop):
            yield running[(step - start) % workers].next()
    finally:
        for worker in running:
            worker.close()


class _Worker:
    """The near end of one process."""

    def __init__(self, number: int, batches: InParts, steps: range, threads: int):
        self._number, self._steps, self._threads = number, steps, threads
        self._batches = cloudpickle.dumps(batches)
        self._process = self._started()

    def next(self) -> dict[str, Any]:
        """The batch of the next of its steps, as soon as it is made."""
        ended = self._received()
        if isinstance(ended, str):
            told = f"Worker {self._number}, which loads data, {ended}"
            print(f"mmcl: {told}; it is started again.", file=sys.stderr)
            self.close()
            self._process = self._started()
            ended = self._received()
            if isinstance(ended, str):
                raise InputError(
                    f"{told}, and so was the one after it: where memory ran out, take "
                    "fewer workers, fewer threads or a smaller batch."
                )
        self._steps = self._steps[1:]
        return ended

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _started(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},  # accelerators belong to the parent
            process_group=0,  # Ctrl-C is for the parent alone
        )
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # type: ignore[union-attr]
            pickle.dump((self._batches, self._steps, self._threads), pipe)
        return process  # gone already, if the pipe broke: that is seen when it is asked for a batch

    def _received(self) -> dict[str, Any] | str:
        """The next batch, or how the process ended before it was there."""
        assert self._process.stdout is not None
        try:
            batch, error = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            try:
                code = self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                return "closed its pipe"
            killed = f"was killed ({signal.Signals(-code).name})" if code < 0 else ""
            return killed or f"ended with exit code {code}"
        if error is not None:
            raise cloudpickle.loads(error)
        return batch


def work() -> None:
    """A worker process: reads what to do from stdin, writes batches to what was stdout."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # who sends it to all means the parent
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed while a batch is made must not stand between batches
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        try:
            batches, steps, threads = pickle.load(sys.stdin.buffer)
            for batch in read_ahead(cloudpickle.loads(batches), steps, threads):
                _send(out, batch, None)
        except BrokenPipeError:
            raise
        except Exception as error:
            _send(out, None, _pickled(error))
    os._exit(0)  # threads may still read ahead


def _send(out: Any, batch: dict[str, Any] | None, error: bytes | None) -> None:
    pickle.dump((batch, error), out, protocol=pickle.HIGHEST_PROTOCOL)
    out.flush()


def _pickled(error: Exception) -> bytes:
    """An exception with its traceback as a note; one that no pickle can hold by its words."""
    error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        made = cloudpickle.dumps(error)
        cloudpickle.loads(made)
        return made
    except Exception:
        return cloudpickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
