"""Commands that only choose among others: ``latentcap``, ``latentcap train``, ``latentcap heads``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from latentcap.data.errors import UserError, did_you_mean


def choose(
    program: str, what: str, verbs: Mapping[str, str], arguments: Sequence[str], *, hint: str = ""
) -> tuple[str, list[str]]:
    """The verb that the arguments begin with, and what follows it.

    ``--help`` prints ``what`` and the verbs with a line each and exits with 0; no arguments do the same with 2. Raises
    UserError, with the ``hint``, for a verb that does not exist.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, verbs))
        lines = [f"usage: {program} COMMAND ...", "", what, ""]
        lines += [f"  {name:{width}}  {text}" for name, text in verbs.items()]
        print("\n".join([*lines, "", f"'{program} COMMAND --help' says what each takes."]))
        sys.exit(0 if arguments else 2)
    chosen, *rest = arguments
    if chosen not in verbs:
        raise UserError(
            f"{program} {chosen}: there is no such command.{did_you_mean(chosen, list(verbs))} "
            f"Commands: {', '.join(verbs)}.{hint}"
        )
    return chosen, rest
