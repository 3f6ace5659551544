"""The one command: what it offers, and that a help text is there before torch is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from latentcap.cli.heads import PROGRAMS
from latentcap.cli.main import COMMANDS, call
from latentcap.cli.train import VERBS
from latentcap.data.errors import UserError

ROOT = Path(__file__).parents[1]
HELP = [
    "",
    *COMMANDS,
    "caption merge",
    "evaluate seeds",
    "prepare check",
    *(f"heads {program}" for program in PROGRAMS),
]
RUN_ALL = """
import contextlib, io, json, sys
from latentcap.cli.main import call
found = {}
for command in json.loads(sys.argv[1]):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        call([*command.split(), "--help"])
    heavy = [name for name in ("torch", "lightning", "transformers", "pyarrow", "ray") if name in sys.modules]
    found[command] = heavy, text.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[list[str], str]]:
    """For each command the heavy modules that were loaded when its help was there, and the help."""
    done = subprocess.run([sys.executable, "-c", RUN_ALL, json.dumps(HELP)], capture_output=True, text=True, check=True)
    found: dict[str, tuple[list[str], str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("command", HELP)
def test_help_needs_no_torch(command: str, helps: dict[str, tuple[list[str], str]]) -> None:
    heavy, text = helps[command]
    assert not heavy
    assert text.startswith(f"usage: latentcap {command}".rstrip())
    assert ".py" not in text
    assert "%%" not in text


def test_help_names_what_there_is(helps: dict[str, tuple[list[str], str]]) -> None:
    for command, names in (("", COMMANDS), ("train", VERBS), ("heads", PROGRAMS)):
        text = helps[command][1]
        assert all(f"\n  {name} " in text and what in text for name, what in names.items())
    assert "predict" not in helps["train"][1]


def test_no_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["train"], ["heads"]):
        with pytest.raises(SystemExit) as stopped:
            call(command)
        assert stopped.value.code == 2
        assert "COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["captoin", "photos"], r"latentcap captoin: .*'caption'"),
        (["train", "predict"], r"latentcap train predict: .*fit, stages, validate, test.*latentcap caption"),
        (["train", "--config", "scenes"], r"latentcap train --config: .*fit, stages, validate, test"),
        (["heads", "reprot"], r"latentcap heads reprot: .*'report'"),
    ],
)
def test_what_does_not_exist_is_refused(command: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(command)


def test_a_checkout_has_an_entry_for_each_command() -> None:
    entries = {path.stem.replace("_", "-"): path.read_text().splitlines() for path in (ROOT / "scripts").glob("*.py")}
    entries.pop("train-ray")  # is for clusters, and no command
    assert set(entries) == set(COMMANDS)
    for name, lines in entries.items():
        assert len(lines) <= 15
        assert f'main("{name}")' in lines[-1]
