"""torch's compiler is imported when it is called, not with timm, and W&B not at all: captioning starts seconds earlier.

While it is imported, timm marks a function as not to be compiled, and torchvision, which it imports, wants to know
whom to ask whether a device can compile. Each needs one function of ``torch._dynamo``, which is the whole compiler.
timm's own training script logs to W&B where that is installed, and so timm imports it; nothing of ours calls that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any

PACKAGE, MODULE = "torch._dynamo", "torch._dynamo.utils"
UNUSED = "wandb"


def is_compile_supported(device_type: str) -> bool:
    """What the function of the same name in ``torch._dynamo.utils`` says; that is imported now."""
    from torch._dynamo.utils import is_compile_supported as supported

    return bool(supported(device_type))


def disable(function: Callable[..., Any], *arguments: Any, **more: Any) -> Callable[..., Any]:
    """``torch._dynamo.disable``, which is imported when the function is called."""

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        import torch._dynamo

        return torch._dynamo.disable(function, *arguments, **more)(*given, **named)

    return call


@contextmanager
def compiler_on_demand() -> Iterator[None]:
    """While it lasts, an import of those functions gives the ones above, and W&B seems not to be installed.

    Does nothing where the compiler is there.
    """
    if PACKAGE in sys.modules:
        yield
        return
    package, module = ModuleType(PACKAGE), ModuleType(MODULE)
    package.__path__ = []
    package.disable = disable  # type: ignore[attr-defined]
    module.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    hidden = UNUSED not in sys.modules
    sys.modules |= {PACKAGE: package, MODULE: module}
    if hidden:
        sys.modules[UNUSED] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        if hidden:
            del sys.modules[UNUSED]
        for name, placeholder in ((PACKAGE, package), (MODULE, module)):
            if sys.modules.get(name) is placeholder:
                del sys.modules[name]
