"""A program begins again once, as the same process with the same words."""

import os
import subprocess
import sys

import pytest

from mmcl.huge_pages import LARGE, VARIABLE, without_them

SHOW = """
import os, sys
print(os.getpid(), flush=True)
from mmcl.huge_pages import begin_again_with_them
begin_again_with_them()
print(os.environ["GLIBC_TUNABLES"], sys.flags.utf8_mode, sys.argv[1:], file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is of Linux")
@pytest.mark.parametrize(("said", "starts"), [(None, 2), (LARGE, 1), ("glibc.malloc.perturb=0", 1)])
def test_a_program_begins_again(said: str | None, starts: int) -> None:
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    if said is not None:
        environment[VARIABLE] = said
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", SHOW, "a b", "--c"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    pids = done.stdout.split()
    assert len(pids) == starts and len(set(pids)) == 1
    assert done.stderr == f"{said or LARGE} 1 ['a b', '--c']\n"


def test_others_begin_without() -> None:
    assert without_them({VARIABLE: LARGE, "A": "1"}) == {"A": "1"}
    theirs = {VARIABLE: "glibc.malloc.perturb=0"}
    assert without_them(theirs) == theirs
