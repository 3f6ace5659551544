"""How every program ends: a user's mistake is one message and exit code 2, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from latentcap.data.cores import keep_to_quota
from latentcap.data.errors import UserError
from latentcap.inference.memory import keep_freed_memory


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and exit with what it returns (None is 0); 2 for a UserError, 130 when interrupted."""
    keep_freed_memory()
    keep_to_quota()
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
