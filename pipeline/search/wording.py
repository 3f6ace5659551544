"""The words of ``SearchConfig`` in the ids of a tokenizer: what is forbidden, required, and never last.

A word vocabulary has one id for a word, so rules compare ids. Under BPE one word can be written as many runs of pieces,
so rules read the text that the pieces make.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from latentcap.data.batches.tokenizer import FULL_STOP, CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.search.config import BAD_ENDINGS, ENGLISH, SearchConfig
from latentcap.search.constraints import NoEnding, NoPhrase, Required, Rule, Spelling
from latentcap.search.generation import Hypothesis
from latentcap.search.text_rules import NoTextEnding, NoWordsInText, words_that_join


@dataclass(frozen=True)
class Wording:
    """``suppress``: ids that are never generated; ``rules`` and ``required``: see ``constraints.py``."""

    suppress: tuple[int, ...]
    rules: tuple[Rule, ...]
    required: Required | None


@lru_cache(maxsize=8)
def resolve(config: SearchConfig, tokenizer: CaptionTokenizer) -> Wording:
    """The rules that a configuration means for a tokenizer.

    Raises:
        UserError: a required word that the vocabulary lacks, that is forbidden too, or that does not fit max_length.
    """
    endings = tuple(dict.fromkeys(word for entry in config.bad_endings for word in _expand(entry)))
    required = _required(config, tokenizer)
    if tokenizer.kind == "bpe":
        pieces, rules = tokenizer.pieces(), list[Rule]()
        if config.forbidden_words:
            rules.append(NoWordsInText(pieces, config.forbidden_words, tokenizer.eos_id))
        if endings:
            rules.append(NoTextEnding(pieces, endings, tokenizer.eos_id))
        return Wording((), tuple(rules), required)
    phrases = [ids for ids in map(tokenizer.encode, config.forbidden_words) if ids and tokenizer.unk_id not in ids]
    last = {ids[0] for ids in map(tokenizer.encode, endings) if len(ids) == 1} - {tokenizer.unk_id}
    rules = [NoPhrase(ids) for ids in phrases if len(ids) > 1]
    if last:
        stop = tokenizer.token_to_id(FULL_STOP)
        rules.append(NoEnding(sorted(last), [tokenizer.eos_id, *([] if stop is None else [stop])]))
    return Wording(tuple(ids[0] for ids in phrases if len(ids) == 1), tuple(rules), required)


def _expand(entry: str) -> Sequence[str]:
    return BAD_ENDINGS if entry.casefold() == ENGLISH else (entry,)


def _required(config: SearchConfig, tokenizer: CaptionTokenizer) -> Required | None:
    if not config.required_words:
        return None
    _check_clash(config)
    spellings: list[tuple[Spelling, ...]]
    joins: tuple[int, ...] = ()
    if tokenizer.kind == "bpe":
        spellings = [
            (Spelling(tuple(tokenizer.encode(" " + phrase))), Spelling(tuple(tokenizer.encode(phrase)), at_start=True))
            for phrase in config.required_words
        ]
        joins = words_that_join(tokenizer.pieces())
    else:
        spellings = [(Spelling(_known(phrase, tokenizer)),) for phrase in config.required_words]
    required = Required(spellings, tokenizer.eos_id, joins)
    if required.size > config.max_length:
        raise UserError(
            f"required_words take {required.size} tokens and max_length is {config.max_length}: raise max_length to "
            f"{required.size} or more, or require fewer words."
        )
    return required


def _check_clash(config: SearchConfig) -> None:
    for phrase in config.required_words:
        for forbidden in config.forbidden_words:
            if f" {forbidden.casefold()} " in f" {phrase.casefold()} ":
                raise UserError(
                    f"required_words has '{phrase}' and forbidden_words '{forbidden}': drop one of the two."
                )


def _known(phrase: str, tokenizer: CaptionTokenizer) -> tuple[int, ...]:
    """The ids of a phrase of a word vocabulary. Raises UserError, with the nearest words, for one that it lacks."""
    ids = tokenizer.encode(phrase)
    if not ids:
        raise UserError(f"required_words: '{phrase}' holds no word. Give words, such as 'tree' or 'swimming pool'.")
    for word in phrase.split():
        if tokenizer.unk_id in tokenizer.encode(word):
            near = difflib.get_close_matches(word.lower(), tokenizer.vocab, n=3, cutoff=0.5)
            hint = f" The nearest words are {', '.join(map(repr, near))}." if near else ""
            raise UserError(
                f"required_words: the model does not know '{word}', so no caption can contain it.{hint} It knows the "
                f"{len(tokenizer) - 4:,} words of its tokenizer.json."
            )
    return tuple(ids)


def word_probabilities(tokenizer: CaptionTokenizer, hypothesis: Hypothesis) -> list[tuple[str, float]]:
    """Each word with its probability given the words before it: the product of its pieces'. ``<eos>`` is left out."""
    scores = hypothesis.token_scores[: len(hypothesis.tokens)]
    if tokenizer.kind == "word":
        return [
            (word, math.exp(score)) for word, score in zip(tokenizer.tokens(hypothesis.tokens), scores, strict=True)
        ]
    pieces = tokenizer.pieces()
    words: list[tuple[bytes, float]] = []
    for token, score in zip(hypothesis.tokens, scores, strict=True):
        if words and not pieces[token][:1].isspace():
            text, total = words.pop()
            words.append((text + pieces[token], total + score))
        else:
            words.append((pieces[token], score))
    return [(text.decode("utf-8", "replace").strip(), math.exp(total)) for text, total in words]
