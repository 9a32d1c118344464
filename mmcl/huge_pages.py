"""Memory in large pages, as far as the C library can ask for them.

A step on a CPU asks for gigabytes of temporary memory anew each time. In pages of 4 KiB the kernel
hands that out so slowly that a step of ViT-S/16 takes 1.8 times as long (BUILD_NOTES.md). glibc
reads the switch once, before Python begins.
"""

import os
import sys

VARIABLE, LARGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def begin_again_with_them() -> None:
    """Begin this program again, as the same process, with large pages.

    Nothing is done where it has begun with them, on other systems than Linux, or where the user has
    told the C library something else.
    """
    if sys.platform != "linux" or VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = LARGE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def without_them(environment: dict[str, str]) -> dict[str, str]:
    """An environment as it was before, for a program of others."""
    return {k: v for k, v in environment.items() if (k, v) != (VARIABLE, LARGE)}
