"""Exact-match METEOR against the Java program."""

from __future__ import annotations

import random
import subprocess

import pytest

from latentcap.metrics.java import coco_folder, java_command, why_unavailable
from latentcap.metrics.meteor import ALPHA, BETA, GAMMA, align, meteor_exact


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a b c", "a b c", (3, 1)),
        ("a b c", "c a b", (3, 2)),
        ("a b a", "a", (1, 1)),
        ("x y", "a b", (0, 0)),
        ("the cat sat on the mat", "on the mat sat the cat", (6, 3)),
    ],
)
def test_alignment(first: str, second: str, expected: tuple[int, int]) -> None:
    assert align(first.split(), second.split()) == expected
    assert align(second.split(), first.split()) == expected


def test_recall_counts_more_and_order_counts() -> None:
    reference = ["many green trees are near a river"]
    assert meteor_exact(reference[0], reference) == 1
    assert meteor_exact("many green trees are near a river and a road", reference) > meteor_exact("trees", reference)
    assert meteor_exact("green trees are near a river", reference) > meteor_exact("river near trees a are", reference)
    assert meteor_exact("", reference) == meteor_exact("water", reference) == 0


def test_agrees_with_the_java_program() -> None:
    if reason := why_unavailable():
        pytest.skip(reason)
    draw = random.Random(0)
    words = ["river", "green", "trees", "buildings", "road", "many", "are", "near", "bridge", "square"]
    texts = [[" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(3)] for _ in range(40)]
    settings = ("-l", "en", "-m", "exact", "-w", "1.0", "-p", f"{ALPHA} {BETA} {GAMMA} 0.5")
    command = java_command(
        "-jar", str(coco_folder() / "meteor" / "meteor-1.5.jar"), "-", "-", "-stdio", *settings, heap="1G"
    )
    lines = "".join(f"SCORE ||| {first} ||| {second} ||| {guess}\n" for first, second, guess in texts)
    # at the end of its input the program stops with an error, after all answers
    statistics = subprocess.run(command, input=lines, capture_output=True, text=True).stdout.splitlines()
    lines = "EVAL ||| " + " ||| ".join(statistics) + "\n"
    scores = subprocess.run(command, input=lines, capture_output=True, text=True).stdout.split()
    ours = [meteor_exact(guess, (first, second)) for first, second, guess in texts]
    assert ours == pytest.approx([float(score) for score in scores[:40]], abs=0.03)
    assert sum(ours) / 40 == pytest.approx(sum(map(float, scores[:40])) / 40, abs=0.005)
