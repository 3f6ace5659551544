"""What the parser of settings says, as one sentence: which setting, what was given, what it accepts, where to look."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from latentcap.data.errors import UserError
from latentcap.in_the_box import recipe_names

HELP = "latentcap train fit --help lists all settings."
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
}
CLASSES = {
    "trainer.logger": "a logger: CSVLogger, TensorBoardLogger or WandbLogger",
    "trainer.callbacks": "a callback's class, such as lightning.pytorch.callbacks.LearningRateMonitor",
}
PACKAGE = re.compile(r"Requirement '([^']+)' not met|No module named '([^'.]+)")
EXPECTED = re.compile(r"Expected an? (.+?)(?= - |\. |$| Given)")
OWN_WORDS = re.compile(r"^\s*- (?!Expected|Does not|Problem|Parser key|Unable)(.+)$", re.MULTILINE)


def known_keys(parser: Any) -> list[str]:
    """Every dotted key of a parser and its subcommands, those inside dataclasses too."""
    keys: list[str] = []
    for action in parser._actions:
        keys.append(action.dest)
        keys += _nested(action.dest, getattr(action, "_typehint", None))
        for sub in (getattr(action, "_name_parser_map", None) or {}).values():
            keys += known_keys(sub)
    return keys


def check_configs(arguments: Sequence[str]) -> None:
    """Raises UserError where a ``--config`` file of a command line holds no settings."""
    for text in _joined(arguments):
        given = re.match(r"(?:--config|-c)[= ](.+)", text)
        if given is None or not Path(given[1]).exists():
            continue
        path = Path(given[1])
        if path.is_dir() and given[1] in recipe_names():
            continue  # a folder of images that has the name of a recipe is not taken for it
        if path.is_dir():
            raise UserError(f"--config {path} is a folder: give a recipe, a YAML file such as configs/scenes.yaml.")
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"--config {path} is no text: give a recipe, a YAML file.") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            raise UserError(f"--config {path} is not YAML: {getattr(error, 'problem', error)}{where}.") from error
        if not isinstance(settings, dict):
            raise UserError(
                f"--config {path} holds no settings: it must be YAML with sections such as trainer:, model: and data:."
            )


def explain_parsing(message: str, keys: Sequence[str], arguments: Sequence[str] = ()) -> str:
    """jsonargparse's message as a sentence; ``arguments`` are those of the command line."""
    text = " ".join(message.split())
    given = [argument.lstrip("-").split("=")[0] for argument in arguments if argument.startswith("--")]
    if package := missing_package(text):
        chosen = re.search(r"class_path '([\w.]+)'", text)
        return f"{chosen[1] if chosen else 'a setting'} needs a package: pip install '{package}'."
    if required := re.match(r"the following arguments are required: ([\w., ]+)", text):
        return _required(required[1], arguments)
    if unknown := re.search(r"unrecognized arguments: (?:--)?([\w.-]+)|Option '([\w.]+)' is not accepted", text):
        name = _full(unknown[1] or unknown[2], given)
        return f"there is no setting '{name}'.{_near(name, keys)} {HELP}"
    if path := re.search(r"Path is not a file: '([^']*)'|File does not exist: '([^']*)'", text):
        return f"--config '{path[1] or path[2]}' is no file: give a recipe, such as configs/scenes.yaml."
    if own := OWN_WORDS.search(message):  # a setting's own check, inside an optional section
        return own[1].strip()
    if key := re.match(r'Parser key "([\w.]+)"', text):
        return _wrong_value(_full(_full(key[1], given), keys), text)
    return f"{text.rstrip('.')[:400]}. {HELP}"


def missing_package(text: str) -> str | None:
    """The package that a message says is not installed, as pip names it; None where it says nothing of the kind."""
    found = PACKAGE.search(text)
    return next(filter(None, found.groups())) if found else None


def _wrong_value(name: str, text: str) -> str:
    given = re.search(r"Given value: (.+)$|Got value: (.+)$|Unable to load config ['\"](.+?)['\"]", text)
    value = f"'{next(filter(None, given.groups()))[:80]}'" if given else "not valid"
    if "Unable to load config" in text:
        return f"{name} is {value}: it holds several settings; give them one by one, as --{name}.NAME VALUE. {HELP}"
    expected = EXPECTED.findall(text)
    kinds = {match[1] for entry in expected if (match := re.match(r"<class '([\w.]+)'>", entry))}
    kinds -= {"int"} if "float" in kinds else set()
    accepted = [name for kind, name in KINDS.items() if kind in kinds]
    if literals := [entry for entry in expected if entry.startswith("typing.Literal")]:
        choices = [choice for entry in literals for choice in re.findall(r"[\w.-]+", entry.partition("[")[2])]
        accepted = [", ".join(dict.fromkeys(choices))]
    elif "import path" in text:
        accepted = [kind for kind in accepted if kind == "true or false"]
        accepted.append(CLASSES.get(name, "the name of a class that can be imported"))
    return f"{name} is {value}: it must be {' or '.join(accepted) or 'of another kind'}. {HELP}"


def _required(names: str, arguments: Sequence[str]) -> str:
    """A class was named whose own settings are missing."""
    classes = [re.match(r"--([\w.]+)[= ](?:[\w.]+\.)?([A-Z]\w*)$", text) for text in _joined(arguments)]
    found = next(filter(None, reversed(classes)), None)
    key, owner = (found[1], found[2]) if found else ("KEY", "a class among the settings")
    options = " ".join(f"--{key}.{name.strip()} VALUE" for name in names.split(","))
    return f"{owner} lacks {names.strip()}: add {options}."


def _joined(arguments: Sequence[str]) -> list[str]:
    """``--key value`` in one, as ``--key=value`` is."""
    return [*arguments, *(f"{one} {two}" for one, two in itertools.pairwise(arguments))]


def _full(name: str, keys: Sequence[str]) -> str:
    """The whole key that a name is the end of, where there is just one."""
    whole = {key for key in keys if key == name or key.endswith(f".{name}")}
    return whole.pop() if len(whole) == 1 else name


def _near(name: str, keys: Sequence[str]) -> str:
    """The known key whose last part is most like this one's; of several, the one most like it as a whole."""
    leaves = {key.split(".")[-1] for key in keys}
    leaf = difflib.get_close_matches(name.split(".")[-1], leaves, n=1, cutoff=0.7)
    near = difflib.get_close_matches(name, [key for key in keys if leaf and key.split(".")[-1] == leaf[0]], cutoff=0.0)
    return f" Did you mean '{near[0]}'?" if near else ""


def _nested(prefix: str, hint: Any) -> list[str]:
    keys: list[str] = []
    for kind in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            hints = typing.get_type_hints(kind)
            for name in hints:
                keys += [f"{prefix}.{name}", *_nested(f"{prefix}.{name}", hints[name])]
    return keys
