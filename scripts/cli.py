"""How every program ends: a user's mistake is one message and exit code 2, never a traceback."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from data.errors import UserError


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and exit with what it returns (None is 0); 2 for a UserError, 130 when interrupted."""
    keep_freed_memory()
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of one layer's activations for the next layer's.

    By default it returns each large block to the system when it is freed, which clears it again, page by page, when the
    next one is asked for, which costs a CNN on a CPU much of its time. Other C libraries have no such setting.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    set_option(mmap_threshold, 1 << 30)
    set_option(trim_threshold, (1 << 31) - 1)
