"""RadGraph F1 and CheXbert F1 by the package RadEval, for those who have it and its models."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

from latentcap.data.errors import UserError

METRICS = ("radgraph", "f1chexbert")
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]


def load_radeval() -> Scorer:
    """What scores reports (B,) against references (B, any number), several of one example being one report.

    Raises UserError where the package is not installed, or its models are neither here nor can be fetched.
    """
    if importlib.util.find_spec("radeval") is None:
        raise UserError(
            "--clinical radeval: the package RadEval is not installed: pip install 'RadEval>=2.2'. It fetches its "
            "models from the Hugging Face hub the first time. Without it, --clinical chexpert finds 14 observations "
            "by rule."
        )
    try:
        from radeval import RadEval

        evaluator = RadEval(metrics=list(METRICS), show_progress=False)
    except Exception as error:  # whatever is wrong with models, the hub or the versions of packages
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--clinical radeval: RadEval cannot load its models ({reason}). They come from the Hugging Face hub, into "
            "the folder that HF_HOME names; some need 'hf auth login' and their terms accepted."
        ) from None

    def score(reports: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        found = evaluator(refs=["\n".join(group) for group in references], hyps=list(reports))
        return {name: float(value) for name, value in found.items()}

    return score
