"""The 14 CheXpert observations in a report, by rules that can be read: phrases, and what denies or doubts them.

In the manner of NegEx (Chapman et al., 2001): a cue counts for the mentions of its own clause. The tables are in
``chexpert_phrases.py``. ``explain`` says for each mention which words made it what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from latentcap.data.example import SEVERAL
from latentcap.data.readers.medical import chexpert_phrases as table
from latentcap.data.sentences import split_sentences

OBSERVATIONS = (
    *(name for name in table.MENTIONS if name != table.DEVICES),
    table.DEVICES,
    table.NO_FINDING,
)


class Status(IntEnum):
    """What a report says of an observation; of several mentions the highest counts."""

    ABSENT = 0  # not mentioned
    NEGATIVE = 1
    UNCERTAIN = 2
    POSITIVE = 3


class Mention(NamedTuple):
    """One mention: the observation, its status, the words, the cue that decided ("" where none did)."""

    observation: str
    status: Status
    words: str
    cue: str


class _Phrase(NamedTuple):
    key: str  # a part of the text without which the pattern cannot match: looked for first, as that is fast
    pattern: re.Pattern[str]


def label_report(report: str) -> dict[str, Status]:
    """Status of each of :data:`OBSERVATIONS`.

    "No Finding" is positive where nothing else but devices is positive or uncertain, and absent otherwise.
    """
    found = dict.fromkeys(OBSERVATIONS, Status.ABSENT)
    for sentence in statements(report):
        for mention in label_sentence(sentence):
            found[mention.observation] = max(found[mention.observation], mention.status)
    findings = (found[name] for name in OBSERVATIONS if name not in (table.DEVICES, table.NO_FINDING))
    if max(findings) < Status.UNCERTAIN:
        found[table.NO_FINDING] = Status.POSITIVE
    return found


def findings_in(report: str) -> str:
    """The observations that a report states or suspects, joined as a label of several values.

    "No Finding" is one of them, so that only a report without a word gives an empty text.
    """
    if not any(map(str.isalpha, report)):
        return ""
    return SEVERAL.join(observations_in(report))


def observations_in(report: str) -> list[str]:
    """The observations that a report states or suspects; "No Finding" is one of them."""
    return [name for name, status in label_report(report).items() if status >= Status.UNCERTAIN]


def label_reports(reports: Iterable[str]) -> list[dict[str, Status]]:
    """:func:`label_report` of each."""
    return [label_report(report) for report in reports]


def statements(report: str) -> list[str]:
    """Sentences, cut at semicolons and line ends too: lower-case single-spaced words and commas.

    Hyphens between words become spaces; what a mark says becomes words, as in "effusion: none" and "?pneumonia".
    """
    report = report.replace("’", "'")
    for mark, words in _MARKS:
        report = mark.sub(words, report)
    parts = (sentence for part in _PART.split(report) for sentence in split_sentences(part))
    plain = (_OTHER.sub(" ", _DASH.sub(" ", part.lower())).split() for part in parts)
    return [" ".join(words) for words in plain if words]


def explain(report: str) -> list[Mention]:
    """Every mention in a report, in order, with the cue that decided its status."""
    return [mention for sentence in statements(report) for mention in label_sentence(sentence)]


@lru_cache(maxsize=65536)
def label_sentence(sentence: str) -> tuple[Mention, ...]:
    """Mentions of one of :func:`statements`."""
    meant = _blank(sentence, _NOT_MEANT)
    hits = [(*match.span(), name, status) for name, status, phrases in _PHRASES for match in _matches(meant, phrases)]
    if not hits:
        return ()
    cues = _blank(sentence, _NOT_A_DENIAL, [hit[:2] for hit in hits])
    cues_of_devices = _blank(cues, _NOT_A_DENIAL_OF_DEVICES)
    mentions = []
    for start, end, name, status in _without_overlaps(hits):
        words = sentence[start:end]
        if status == Status.NEGATIVE and _NOT_NORMAL.search(words):
            status = Status.UNCERTAIN
        text, stops = (cues_of_devices, _DEVICE_IS_THERE) if name == table.DEVICES else (cues, ())
        decided, cue = (status, words) if status != Status.POSITIVE else _judge(text, start, end, stops)
        mentions.append(Mention(name, decided, words, cue))
    return tuple(mentions)


def _judge(sentence: str, start: int, end: int, stops: Sequence[_Phrase] = ()) -> tuple[Status, str]:
    """Status of a mention at [start, end), and the cue: the nearest before it, else one behind it.

    ``stops``: what a cue before the mention does not reach across.
    """
    ends = [match.span() for match in _matches(_blank(sentence, _NO_END), _ENDS)]
    opening, first = max((span for span in ends if span[1] <= start), key=lambda span: span[1], default=(0, 0))
    last = min((span[0] for span in ends if span[0] >= end), default=len(sentence))
    over = min((at for at, _ in ends if at >= end and not _COMMA_WORD.match(sentence, at)), default=len(sentence))
    before, after = _blank(sentence[first:end], _BEHIND), sentence[start:last]
    governed = _VERB.search(sentence, opening, start) is not None
    barrier = (
        sentence.rfind(_BLANKED, first, start) - first
    )  # "no change in": what stands before does not reach further
    nearest = (0, 0, Status.POSITIVE, "")  # of the cues before: the one that ends last, of several the longest
    for status, phrases in ((Status.UNCERTAIN, _DOUBTS_AFTER), (Status.NEGATIVE, _DENIES_AFTER)):
        for match in _matches(before, phrases):
            behind = first + match.end()
            if match.end() <= barrier or _NEW_SUBJECT.search(before, match.end()):
                continue
            if status == Status.NEGATIVE and _stated_anew(sentence[behind:over], start - behind):
                continue
            if not any(stop.start() >= match.end() for stop in _matches(before, stops)):
                nearest = max(nearest, (match.end(), len(match[0]), status, match[0]))
    if nearest[3]:
        return nearest[2:]
    for status, phrases in ((Status.UNCERTAIN, _DOUBTS_BEFORE), (Status.NEGATIVE, _DENIES_BEFORE)):
        for match in _matches(after, phrases):
            if _reaches(after[: match.start()], match[0], governed):
                return status, match[0]
    for status, ending in ((Status.UNCERTAIN, _DOUBTED_AT_END), (Status.NEGATIVE, _DENIED_AT_END)):
        if said := ending.fullmatch(after[end - start :].rstrip(" ,")):
            return status, said[1]
    return Status.POSITIVE, ""


def _stated_anew(denied: str, start: int) -> bool:
    """Whether the comma before a mention begins a statement of its own, which a denial before the comma does not reach.

    As in "no pneumothorax, small effusion" and "no pneumothorax, effusion is unchanged"; not in a list that goes on, as
    in "no pneumothorax, small effusion, or edema", and not in "no acute, displaced fracture".

    Args:
        denied: the clause from behind its denial.
        start: of the mention, in ``denied``.
    """
    item, comma, _ = denied[:start].rpartition(", ")
    if not comma or _ADJECTIVE.search(item):
        return False
    rest = _DENIAL.split(denied[len(item + comma) :])[0]
    if _STATED.match(rest) or ("," not in item and _SEEN.match(rest)):
        return True
    if _LIST.search(rest):
        return False
    return bool(_AFFIRMED.match(rest) or (_NOTHING_ACUTE.search(item) and _CHRONIC.match(rest)))


def _reaches(between: str, cue: str, governed: bool) -> bool:
    """Whether a cue behind a mention is about it, too, and not only about something named between the two.

    ``governed``: the mention has a verb of its own before it, as in "there is x and y is not seen".
    """
    if governed and re.search(r"(?:,| and) ", between):
        return False
    if cue in _VERSUS and "," in between and not between.endswith(", "):
        return False  # "opacity, pneumonia versus atelectasis": the opacity is in no doubt
    if _PREDICATE.match(cue) and _OTHER_SUBJECT.search(between):
        return False  # "opacity is seen and pneumonia is possible": nor is this one
    return len(_VERB.findall(between)) <= 1 and not _NEW_SUBJECT.search(between)


def _without_overlaps(hits: Sequence[tuple[int, int, str, Status]]) -> list[tuple[int, int, str, Status]]:
    """Of hits of one observation that overlap, outright statements first ("heart size is normal"), then the longest."""
    kept: list[tuple[int, int, str, Status]] = []
    for hit in sorted(hits, key=lambda hit: (hit[3] == Status.POSITIVE, hit[0] - hit[1], hit[0])):
        if not any(hit[2] == other[2] and hit[0] < other[1] and other[0] < hit[1] for other in kept):
            kept.append(hit)
    return sorted(kept)


def _matches(text: str, phrases: Sequence[_Phrase]) -> Iterator[re.Match[str]]:
    for phrase in phrases:
        if phrase.key in text:
            yield from phrase.pattern.finditer(text)


def _blank(text: str, phrases: Sequence[_Phrase], kept: Sequence[tuple[int, int]] = ()) -> str:
    """``text`` with the phrases replaced by as many underscores, so that positions stay, but for those that hold a part
    of ``kept``, pairs of positions."""
    for phrase in phrases:
        start = 0
        while phrase.key in text and (match := phrase.pattern.search(text, start)):
            first, last = match.span()
            if any(first < end and begin < last for begin, end in kept):
                start = first + 1
            else:
                text, start = text[:first] + _BLANKED * (last - first) + text[last:], last
    return text


def _compile(phrases: Iterable[str]) -> tuple[_Phrase, ...]:
    """Phrases of the tables as regular expressions."""
    compiled = []
    for phrase in phrases:
        words = phrase.split()
        parts, key = [], ""
        for word in words:
            if word == "~":
                parts.append(r"(?:[\w'_]+ ){0,6}?")
                continue
            options = "|".join(re.escape(option).replace(r"\*", r"\w*") for option in word.split("|"))
            parts.append(f"(?:{options}) ")
            if "|" not in word and len(word.rstrip("*")) > len(key):
                key = word.rstrip("*")
        compiled.append(_Phrase(key, re.compile(r"(?<![\w'])" + "".join(parts)[:-1] + r"(?![\w'])")))
    return tuple(compiled)


_BLANKED = "_"
_DASH = re.compile(r"(?<=\w)[-/](?=\w)")
_PART = re.compile(r"[;\n]")
_MARKS = (
    (re.compile(r"(?:\s*:|\s+[-–—])\s*(?:none|no|nil|absent|negative)\b(?=\s*(?:[.,;\n]|$))", re.I), " is absent"),
    (re.compile(r"(?<![\w)])\?+\s*(?=\w)"), "questionable "),
    (re.compile(r"(?<=\w)\s?\?+"), " is possible."),
)
_OTHER = re.compile(r"[^\w', ]")
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|had|shows?|demonstrates?|remains?|appears?|reveals?)\b")
_PREDICATE = re.compile(rf"{_VERB.pattern}|(?:can|could|may|might) ")
_SAME_SUBJECT = r"(?:it|that|they|these|this|now|since|again|also|still|\w+ly)"
_OTHER_SUBJECT = re.compile(rf"{_VERB.pattern}.*(?:,| and) (?!{_SAME_SUBJECT} )\w[\w' ]*(?<! and )$")
_NEW_SUBJECT = re.compile(r"(?:\band|,) (?:the|there|heart|lungs)\b|\b(?:may|might|could) ")
_NOT_NORMAL = re.compile(r"\b(?:not|no longer)(?: (?:yet|within|quite|entirely|completely|fully|totally))* [\w']+$")
_AT_END = r"(?: (?!and )[\w']+){0,4}?"  # of its clause, a few words after a mention
_DENIED_AT_END = re.compile(_AT_END + r",? ((?:now |since |completely )?(?:resolved|cleared|absent|removed|gone))")
_DOUBTED_AT_END = re.compile(_AT_END + r" ((?:is|are) (?:more |most |very |less )?(?:likely|probable))")
_COMMA_SUBJECT = re.compile(r", (?:and )?(?=(?:the|there|heart|cardiac|lungs|lung) )")
_COMMA_WORD = re.compile(r", (?:and )?(?=(?:cardiomegaly|mild|stable|unchanged) )")
# What _stated_anew looks for, behind the denial and behind a comma.
_DENIAL = re.compile(r"\b(?:no|without)\b")
_LIST = re.compile(r"\bn?or\b|, and \w")
_ADJECTIVE = re.compile(r"\b(?:acute|active|definite|discrete|displaced|focal|gross|large|new|obvious|significant)\s*$")
_PLACE = r"at (?:the|both) (?:\w+ ){0,2}(?:bases?|apex|apices)"
_AFFIRMED = re.compile(rf"(?:{'|'.join(table.STATED_AFTER_COMMA)}) |[^,]* {_PLACE}\b")
_NOTHING_ACUTE = re.compile(r"\bacute (?:[\w']+ )*(?:abnormalit\w+|disease|findings?|process)$")
_CHRONIC = re.compile(r"cardiomegaly$")
_SUBJECT = r"(?:(?!(?:and|or) )[\w']+ )+?"
_NOW = r"(?:(?:been|grossly|largely|mildly|now|relatively|significantly|slightly) )*"
_STATED = re.compile(
    _SUBJECT + r"(?:persists?\b|(?:is|are) (?:again|also|still) (?:present|noted|seen)\b"
    rf"|(?:is|are|has|have|remains?) {_NOW}"
    r"(?:unchanged|stable|increased|decreased|improved|worse|worsened|larger|smaller|enlarged)\b)"
)
_SEEN = re.compile(_SUBJECT + r"(?:is|are) (?:present|noted|seen)\b")

_ENDS = (*_compile(table.CLAUSE_ENDS), _Phrase(", ", _COMMA_SUBJECT), _Phrase(", ", _COMMA_WORD))
_NO_END = _compile(table.NOT_A_CLAUSE_END)
_NOT_MEANT, _NOT_A_DENIAL = _compile(table.NOT_MEANT), _compile(table.NOT_A_DENIAL)
_NOT_A_DENIAL_OF_DEVICES, _DEVICE_IS_THERE = _compile(table.NOT_A_DENIAL_OF_DEVICES), _compile(table.DEVICE_IS_THERE)
_DENIES_AFTER, _DOUBTS_AFTER = _compile(table.DENIES_AFTER), _compile(table.DOUBTS_AFTER)
_DENIES_BEFORE, _DOUBTS_BEFORE = _compile(table.DENIES_BEFORE), _compile(table.DOUBTS_BEFORE)
_VERSUS = ("versus", "vs")
_BOTH_WAYS = ("negative", *_VERSUS)  # "negative" denies what is before it, and with "for" what follows
_BEHIND = tuple(phrase for phrase in (*_DENIES_BEFORE, *_DOUBTS_BEFORE) if phrase.key not in _BOTH_WAYS)
_PHRASES = [
    (name, status, _compile(phrases))
    for status, phrases_of in (
        (Status.NEGATIVE, table.NORMAL),
        (Status.UNCERTAIN, table.BORDERLINE),
        (Status.POSITIVE, table.MENTIONS),
    )
    for name, phrases in phrases_of.items()
]
