"""Where networks run."""

from __future__ import annotations

import torch

from latentcap.data.errors import UserError


def usable_device(given: str | torch.device) -> torch.device:
    """A device that is there. Raises UserError for one that is not."""
    try:
        device = torch.device(given)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {given} cannot be used ({reason}). cpu always can.") from None
    return device
