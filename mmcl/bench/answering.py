"""A process of its own that is asked again and again: both ends of it.

Each question and each answer is a line of JSON, so that two of them can take turns on a machine.
"""

import contextlib
import json
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Self

from mmcl.bench.row import Failed, reason


class Answering:
    """The near end: `python -m MODULE WORDS...`, which calls `answer`.

    Args:
        env: its environment; None: this process's.

    Raises:
        Failed: of `ask`; the process ended, with the last line of what it said.
    """

    def __init__(self, module: str, *words: str, env: Mapping[str, str] | None = None):
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=None if env is None else dict(env),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, question: Any) -> Any:
        """What the process answers."""
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            said, code = process.stderr.read().strip().splitlines(), process.wait()
            if code < 0:
                name = signal.Signals(-code).name
                raise Failed(f"its process was ended by {name}; perhaps memory ran out.")
            raise Failed(said[-1] if said else f"it ended with code {code}.")
        return json.loads(line)


def answer(opened: Callable[[], Callable[[Any], Any]]) -> None:
    """The far end: open what is asked about, then answer each line until there is none.

    An error ends the process with code 1, and its last line on stderr says what it was.
    """
    try:
        reply = opened()
        for line in sys.stdin:
            print(json.dumps(reply(json.loads(line))), flush=True)
    except Exception as error:  # whatever it is, the other sides go on
        traceback.print_exc()
        print(reason(error), file=sys.stderr)
        sys.exit(1)
