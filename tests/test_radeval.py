"""RadEval, where it is installed: a stand-in for the package; and what is said where it is not."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.evaluation.printed import radeval_lines
from latentcap.evaluation.results import score
from latentcap.evaluation.scored import Scored
from latentcap.metrics.clinical.radeval import load_radeval

asked: list[dict[str, Any]] = []


class RadEval:
    def __init__(self, **settings: Any) -> None:
        asked.append(settings)

    def __call__(self, refs: list[str], hyps: list[str]) -> dict[str, float]:
        return {"radgraph_simple": sum(map(str.__eq__, refs, hyps)) / len(refs)}


def install(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    module = ModuleType("radeval")
    module.__spec__ = ModuleSpec("radeval", None)
    module.RadEval = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "radeval", module)


def test_scores_of_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, RadEval)
    monkeypatch.setattr("latentcap.metrics.coco.why_unavailable", lambda: "not asked for")
    asked.clear()
    scorer = load_radeval()
    assert asked == [{"metrics": ["radgraph", "f1chexbert"], "show_progress": False}]
    examples = [Example("a", (), ("No effusion.",)), Example("b", (), ("Clear.", "Normal."))]
    scored = Scored("file", examples, ["No effusion.", "Clear."])
    results = score(scored, train=[], tokenizer="words", samples=10, radeval=scorer)
    assert results.to_dict()["radeval"]["file"] == {"radgraph_simple": 0.5}
    assert set(results.radeval) == {"file", "floor"}
    assert "RadEval, file: radgraph_simple 0.500" in list(radeval_lines(results.radeval))


def test_what_is_said_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**settings: Any) -> None:
        raise OSError("no such model\nmore")

    install(monkeypatch, broken)
    with pytest.raises(UserError, match=r"cannot load its models \(no such model\).*HF_HOME"):
        load_radeval()
    monkeypatch.setitem(sys.modules, "radeval", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"RadEval is not installed: pip install 'RadEval>=2\.2'.*--clinical chexpert"):
        load_radeval()
