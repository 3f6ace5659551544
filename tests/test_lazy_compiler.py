"""timm without torch's compiler, and the compiler all the same when somebody asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from latentcap.captioner import Captioner
assert not {"torch._dynamo", "wandb", "lightning", "transformers", "pyarrow", "rich"} & set(sys.modules)
import timm, torch
from torchvision.ops.roi_align import is_compile_supported
assert isinstance(is_compile_supported("cpu"), bool)
assert torch._dynamo.utils.__file__
@torch.compiler.disable
def twice(x):
    return 2 * x
assert twice(2) == 4
print("the compiler is there when it is wanted")
"""


def test_captioning_starts_without_the_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("the compiler is there when it is wanted\n"), done.stderr
