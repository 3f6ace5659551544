"""Memory that a process keeps."""

from __future__ import annotations

import ctypes


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
    # Releases before 2.35 refuse more than 32 MB, and without a threshold of its own would map every block anew.
    if set_option(mmap_threshold, 1 << 30) or set_option(mmap_threshold, 32 << 20):
        set_option(trim_threshold, (1 << 31) - 1)
