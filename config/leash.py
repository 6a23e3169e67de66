"""Run a program that ends when the process that started it is gone: `leash.py PARENT SIGNAL PROGRAM [ARGUMENT ...]`.

A script of its own, because the wish survives only an exec, and wishing between fork and exec is not safe in Python.
Linux alone can promise this; elsewhere the program runs without it.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, number: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)  # it died before we could wish
    os.execvp(command[0], command)  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
