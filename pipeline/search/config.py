"""How captions are searched for: every setting, with its default and what contradicts it."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, Self

from latentcap.data.errors import UserError, did_you_mean

ENGLISH = "english"  # in ``bad_endings``: all of BAD_ENDINGS
BAD_ENDINGS = (
    *("a", "an", "the", "this", "these", "some", "several", "many", "very", "its", "their", "his", "her", "my", "your"),
    *("of", "in", "on", "at", "to", "by", "for", "from", "with", "within", "into", "onto", "between", "among", "near"),
    *("beside", "and", "or", "but", "nor", "as", "than", "that", "which", "whose", "who", "our"),
    *("is", "are", "was", "were", "be", "been", "being", "has", "have", "had"),
)
WORD_LISTS = ("forbidden_words", "required_words", "bad_endings")
SAMPLING_ONLY = ("temperature", "top_k", "top_p")
LEAST_TEMPERATURE, MOST_TEMPERATURE, LEAST_TOP_P = 1e-3, 100.0, 1e-6
MOST_LENGTH_PENALTY, MOST_WEIGHT = 10.0, 1000.0  # beyond them scores overflow
MOST_BEAMS = 10_000
BEAMS_ONLY = ("beam_size", "guidance", "beam_groups", "diversity_penalty")


@dataclass(frozen=True)
class SearchConfig:
    """How captions are searched for: beam search (greedy, plain or diverse), or sampling.

    Lengths and n-grams count tokens: words, or pieces of words under BPE. Lists of words may be one text with commas.
    This table is the only one: the options of the programs and the arguments of ``Captioner.caption`` are made of it.

    Attributes:
        beam_size: captions searched side by side; 1 is greedy. Not used for sampling.
        num_captions: the best captions of each image, for which beams are added; of sampling, how many are drawn.
        max_length: longest caption in words (tokens), the end not counted.
        min_length: shortest caption in words (tokens).
        length_penalty: captions are ranked by log p / length ** length_penalty: above 0 favours longer ones.
        guidance: what words that the label head sees are worth, where it knows words of captions; 0 is off.
        no_repeat_ngram: no run of that many words occurs twice in a caption; 0 allows it.
        forbidden_words: words or phrases that no caption contains, such as "tree, swimming pool".
        required_words: words or phrases that every caption contains; needs 2 beams or more.
        bad_endings: words that no caption ends with; "english" stands for a, of, the and their like.
        beam_groups: diverse beam search, with that many groups of beams, each kept off the words of those before.
        diversity_penalty: what a word costs, in nats, for each beam of earlier groups that takes it at the same step.
        sample: draw each word at random instead of searching for the most probable caption.
        temperature: of sampling; below 1 favours probable words.
        top_k: sample among the k most probable words only; 0 is all.
        top_p: sample among the most probable words that together reach this probability only; 1 is all.
        seed: of sampling; the same seed and image give the same captions, whatever else is captioned.

    Sources: diverse beam search, Vijayakumar et al. 2016; required words, dynamic beam allocation, Post and Vilar 2018;
    guidance: :class:`~latentcap.search.guidance.Guidance`.
    """

    beam_size: int = 3
    num_captions: int = 1
    max_length: int = 40
    min_length: int = 1
    length_penalty: float = 0.7
    guidance: float = 0.5
    no_repeat_ngram: int = 0
    forbidden_words: tuple[str, ...] = ()
    required_words: tuple[str, ...] = ()
    bad_endings: tuple[str, ...] = ()
    beam_groups: int = 1
    diversity_penalty: float = 0.5
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _typed(entry.name, getattr(self, entry.name)))
        self._check_ranges()
        if self.sample:
            self._check_sampling()
        else:
            self._check_beams()

    def _check_ranges(self) -> None:
        if not 1 <= self.beam_size <= MOST_BEAMS:
            raise UserError(f"beam_size is {self.beam_size}: it must be 1 (greedy) or more, at most {MOST_BEAMS:,}.")
        if not 0 <= self.min_length <= self.max_length or self.max_length < 1:
            raise UserError(
                f"min_length is {self.min_length} and max_length {self.max_length}: 0 <= min <= max, 1 <= max."
            )
        if not abs(self.length_penalty) <= MOST_LENGTH_PENALTY:
            raise UserError(
                f"length_penalty is {self.length_penalty}: it must be a number from {-MOST_LENGTH_PENALTY:g} to "
                f"{MOST_LENGTH_PENALTY:g}, such as 0.7."
            )
        for name, zero in (("guidance", "0 (off)"), ("diversity_penalty", "0")):
            if not 0 <= getattr(self, name) <= MOST_WEIGHT:
                raise UserError(
                    f"{name} is {getattr(self, name)}: it must be {zero} or more, at most {MOST_WEIGHT:g}, such as 0.5."
                )
        if not LEAST_TEMPERATURE <= self.temperature <= MOST_TEMPERATURE:
            raise UserError(
                f"temperature is {self.temperature}: it must be above 0, from {LEAST_TEMPERATURE:g} to "
                f"{MOST_TEMPERATURE:g}; near 0, use beam_size=1 instead."
            )
        if not LEAST_TOP_P <= self.top_p <= 1:
            raise UserError(
                f"top_p is {self.top_p}: it must be above 0, {LEAST_TOP_P:g} or more, and at most 1, which allows all "
                "words."
            )
        for name, zero in (("top_k", "all words"), ("no_repeat_ngram", "off"), ("seed", "the default")):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}: it must be 0 ({zero}) or more.")

    def _check_sampling(self) -> None:
        if self.num_captions < 1:
            raise UserError(f"num_captions is {self.num_captions}: it must be 1 or more.")
        if self.beam_groups > 1:
            raise UserError(f"sample and beam_groups={self.beam_groups} contradict: sampling has no beams. Drop one.")
        if self.guidance not in (0, default("guidance")):
            raise UserError(f"sample and guidance={self.guidance} contradict: only beam search is guided. Drop one.")
        if self.required_words:
            raise UserError("sample and required_words contradict: only beam search can require words. Drop one.")

    def _check_beams(self) -> None:
        if not 1 <= self.num_captions <= self.beam_size:
            raise UserError(
                f"num_captions is {self.num_captions}: it must be from 1 to beam_size, which is {self.beam_size}."
            )
        for name in SAMPLING_ONLY:
            if getattr(self, name) != default(name):
                raise UserError(
                    f"{name} is {getattr(self, name)}, and only sampling uses it: set sample too, or leave {name} at "
                    f"{default(name)} for beam search."
                )
        if self.beam_groups < 1 or self.beam_size % self.beam_groups:
            divisors = [str(n) for n in range(1, self.beam_size + 1) if self.beam_size % n == 0]
            raise UserError(
                f"beam_groups is {self.beam_groups}: it must divide beam_size, which is {self.beam_size}: "
                f"{', '.join(divisors)}."
            )
        if self.beam_groups == 1 and self.diversity_penalty != default("diversity_penalty"):
            raise UserError(
                f"diversity_penalty is {self.diversity_penalty} and there is one group of beams: set beam_groups to 2 "
                "or more, or drop diversity_penalty."
            )
        if self.required_words and self.beam_groups > 1:
            raise UserError("required_words and beam_groups contradict: set beam_groups to 1.")
        if self.required_words and self.beam_size < 2:
            raise UserError("required_words need beam_size 2 or more: greedy search cannot look for their place.")

    def changed(self, /, **changes: Any) -> Self:
        """These settings with some changed; going from beams to sampling or back drops what only the other uses.

        More captions than beams add beams, unless their number is among the changes.

        Raises UserError for settings that do not exist or contradict each other.
        """
        _check_names(changes)
        changes = {name: _typed(name, value) for name, value in changes.items()}
        sample = changes.get("sample", self.sample)
        if sample and changes.get("beam_size", 1) > 1:
            raise UserError(
                f"sample and beam_size={changes['beam_size']} contradict: sampling has no beams. Drop one; "
                "num_captions says how many samples are drawn."
            )
        if sample != self.sample:
            changes = {name: default(name) for name in (BEAMS_ONLY if sample else SAMPLING_ONLY)} | changes
        wanted = changes.get("num_captions", 1)
        if not sample and "beam_size" not in changes and wanted > self.beam_size:
            groups = max(1, changes.get("beam_groups", self.beam_groups))
            changes["beam_size"] = -(-wanted // groups) * groups
        return replace(self, **changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; what is absent has its default, but for guidance: older folders had none."""
        _check_names(values)
        return cls(**{"guidance": 0.0, **values})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _check_names(settings: Iterable[str]) -> None:
    valid = SearchConfig.__dataclass_fields__
    for name in settings:
        if name not in valid:
            raise UserError(f"unknown search setting '{name}'.{did_you_mean(name, valid)}")


def described() -> dict[str, str]:
    """What each setting is, by its name: the lines of the class's docstring."""
    return dict(re.findall(r"^ {4}(\w+): (.+)\.$", inspect.getdoc(SearchConfig) or "", re.MULTILINE))


def default(name: str) -> Any:
    return next(entry.default for entry in fields(SearchConfig) if entry.name == name)


def _typed(name: str, value: Any) -> Any:
    """A setting as its default's type; whole numbers may be written as 3.0. Raises UserError for other types."""
    usual = default(name)
    if isinstance(usual, tuple):
        return _words(name, value)
    if isinstance(usual, bool):
        if isinstance(value, bool):
            return value
        raise UserError(f"{name} is {_shown(value)}, of the wrong type: it must be true or false.")
    numeric = isinstance(value, Real) and not isinstance(value, bool)
    if numeric and isinstance(usual, float):
        try:
            return float(value)
        except OverflowError:  # a whole number, which no check below lets through
            return math.inf if value > 0 else -math.inf
    if numeric and isinstance(usual, int) and (isinstance(value, Integral) or float(value).is_integer()):
        return int(value)
    kind = "a whole number" if isinstance(usual, int) else "a number"
    raise UserError(f"{name} is {_shown(value)}, of the wrong type: it must be {kind}, such as {usual}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _words(name: str, value: Any) -> tuple[str, ...]:
    """A list of words or phrases, or one text with commas, as a tuple without blanks and repetitions."""
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, Sequence | Set) or not all(isinstance(entry, str) for entry in entries):
        raise UserError(
            f"{name} is {_shown(value)}: it must be a list of words or phrases, or a text with commas between."
        )
    return tuple(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))
