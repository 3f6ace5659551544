"""Words of the settings as rules for a vocabulary of words and one of pieces."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.search.config import BAD_ENDINGS, SearchConfig
from latentcap.search.generation import Hypothesis
from latentcap.search.wording import Wording, resolve, word_probabilities

TEXTS = ["a cat on the mat.", "Cats concatenate a swimming pool", "the catalogue of trees — a tree", "the café of it"]


@pytest.fixture(scope="module")
def words() -> CaptionTokenizer:
    return CaptionTokenizer.train(TEXTS)


@pytest.fixture(scope="module")
def pieces() -> CaptionTokenizer:
    return CaptionTokenizer.train(TEXTS, kind="bpe", vocab_size=300)


def allowed(wording: Wording, tokenizer: CaptionTokenizer, ids: list[int]) -> bool:
    """Whether a whole caption of these ids, in any split, passes all rules."""
    for place, token in enumerate([*ids, tokenizer.eos_id]):
        log_probs = torch.zeros(1, 1, len(tokenizer))
        log_probs[..., list(wording.suppress)] = -torch.inf
        prefix = torch.tensor([[[tokenizer.bos_id, *ids[:place]]]])
        for rule in wording.rules:
            rule(log_probs, prefix)
        if log_probs[0, 0, token].isinf():
            return False
    return True


def splits(tokenizer: CaptionTokenizer, text: str) -> list[list[int]]:
    """Ways to write a text: as trained, byte by byte, and with each single cut."""
    raw = text.encode()
    by_bytes = {piece: index for index, piece in enumerate(tokenizer.pieces()) if len(piece) == 1}
    ways = [tokenizer.encode(text), [by_bytes[bytes([byte])] for byte in raw]]
    ways += [tokenizer.encode(text[:cut]) + tokenizer.encode(text[cut:]) for cut in range(1, len(text))]
    return ways


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a cat on the mat", False),
        ("Cat on", False),
        ("a CAT", False),
        ("the cat", False),
        ("the cat, a", False),
        ("the cat\u2014a", False),
        ("a cat's", False),
        ("cats concatenate the catalogue", True),
        ("a cat2", True),
        ("scat", True),
        ("a  swimming  pool", False),
        ("a swimming pool.", False),
        ("a Swimming Pool of", False),
        ("a swimming pools", True),
        ("a pool swimming", True),
        ("le CAFÉ", False),
        ("cafés", True),
        ("a café.", False),
    ],
)
def test_forbidden_words_are_found_in_any_split(pieces: CaptionTokenizer, text: str, good: bool) -> None:
    wording = resolve(SearchConfig(forbidden_words="cat, swimming pool, café"), pieces)  # type: ignore[arg-type]
    for ids in splits(pieces, text):
        assert allowed(wording, pieces, ids) is good, pieces.tokens(ids)


def test_forbidden_words_of_a_word_vocabulary(words: CaptionTokenizer) -> None:
    config = SearchConfig(forbidden_words=("Cat", "swimming pool", "unheard of"))
    wording = resolve(config, words)
    for text, good in (("a cat", False), ("swimming pool", False), ("pool swimming", True), ("cats of trees", True)):
        assert allowed(wording, words, words.encode(text)) is good


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_bad_endings(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: CaptionTokenizer = request.getfixturevalue(kind)
    english = resolve(SearchConfig(bad_endings=("english",)), tokenizer)
    own = resolve(SearchConfig(bad_endings=("cat", "mat")), tokenizer)
    for text, good, good_own in (
        ("a cat of the", False, True),
        ("the tree of", False, True),
        ("the cat on a", False, True),
        ("of the cat", True, False),
        ("the mat", True, False),
        ("of trees", True, True),
    ):
        for ids in splits(tokenizer, text) if kind == "pieces" else [tokenizer.encode(text)]:
            assert allowed(english, tokenizer, ids) is good
            assert allowed(own, tokenizer, ids) is good_own


def test_bad_endings_before_a_full_stop(pieces: CaptionTokenizer) -> None:
    for ids in splits(pieces, "a cat of."):
        assert not allowed(resolve(SearchConfig(bad_endings=("english",)), pieces), pieces, ids)
    reports = CaptionTokenizer.train(["the heart of it. clear."], sentences=True)
    wording = resolve(SearchConfig(bad_endings=("english",)), reports)
    assert not allowed(wording, reports, reports.encode("the heart of."))
    assert allowed(wording, reports, reports.encode("the heart clear."))


def test_the_english_list_is_of_single_lower_case_words() -> None:
    assert len(set(BAD_ENDINGS)) == len(BAD_ENDINGS)
    assert all(re.fullmatch("[a-z]+", word) for word in BAD_ENDINGS)


def missing(wording: Wording, tokenizer: CaptionTokenizer, ids: list[int]) -> int:
    assert wording.required is not None
    return int(wording.required.missing(torch.tensor([[[tokenizer.bos_id, *ids]]])))


def test_required_words_of_pieces_end_where_the_word_ends(pieces: CaptionTokenizer) -> None:
    wording = resolve(SearchConfig(required_words=("tree", "swimming pool")), pieces)
    assert missing(wording, pieces, pieces.encode("a tree of the swimming pool")) == 0
    assert missing(wording, pieces, pieces.encode("tree on a swimming pool.")) == 0
    assert missing(wording, pieces, pieces.encode("a cat")) > 0
    tree = pieces.encode(" tree")
    s, swimming = pieces.encode("s"), pieces.encode(" swimming pool")
    assert missing(wording, pieces, swimming + tree) == 0
    assert missing(wording, pieces, swimming + tree + s) > 0  # "trees"


def test_the_next_token_leads_to_the_requirement(pieces: CaptionTokenizer, words: CaptionTokenizer) -> None:
    for tokenizer in (pieces, words):
        required = resolve(SearchConfig(required_words=("catalogue of trees",)), tokenizer).required
        assert required is not None
        ids = [tokenizer.bos_id, *tokenizer.encode("the mat")]
        for _ in required.phrases[0][0].tokens:
            ids.append(int(required.next_tokens(torch.tensor([[ids]]))[0, 0, 0]))
        assert tokenizer.decode(ids[1:]) == "the mat catalogue of trees"


def test_required_words_that_cannot_be(words: CaptionTokenizer) -> None:
    for changes, message in (
        ({"required_words": ("treee",)}, "does not know 'treee'.*nearest words are 'tree'"),
        ({"required_words": ("a zzz",)}, "does not know 'zzz'"),
        ({"required_words": ("...",)}, "holds no word"),
        ({"required_words": ("a cat on the mat",), "max_length": 3}, "take 5 tokens and max_length is 3"),
        ({"required_words": ("swimming pool",), "forbidden_words": ("pool",)}, "drop one of the two"),
    ):
        with pytest.raises(UserError, match=message):
            resolve(SearchConfig(**changes), words)  # type: ignore[arg-type]


def test_probabilities_of_words_are_the_products_of_their_pieces(
    pieces: CaptionTokenizer, words: CaptionTokenizer
) -> None:
    ids = [index for text in ("a", " ca", "t", " swim", "ming") for index in pieces.encode(text)]
    scores = [-0.1 * (place + 1) for place in range(len(ids) + 1)]
    found = word_probabilities(pieces, Hypothesis(ids, -1.0, scores, True))
    assert [word for word, _ in found] == ["a", "cat", "swimming"]
    product = torch.tensor([value for _, value in found]).prod()
    torch.testing.assert_close(product, torch.tensor(sum(scores[:-1])).exp())
    hypothesis = Hypothesis(words.encode("a cat"), -1.0, [-0.5, -1.0], False)
    expected: Tensor = torch.tensor([-0.5, -1.0]).exp()
    assert [word for word, _ in word_probabilities(words, hypothesis)] == ["a", "cat"]
    assert [value for _, value in word_probabilities(words, hypothesis)] == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("一只红色的猫坐在桌子上", False),  # a word stands anywhere where no spaces are written
        ("猫", False),
        ("一只红色的树", True),
        ("树是红色的", False),  # its last word
        ("红色的树", True),
        ("नि", True),  # the mark makes it another word
        ("यह न है", False),
    ],
)
def test_words_of_other_scripts(text: str, good: bool) -> None:
    texts = ["一只红色的猫坐在桌子上", "树是红色的", "यह न है नि"]
    tokenizer = CaptionTokenizer.train(texts, kind="bpe", vocab_size=330)
    wording = resolve(SearchConfig(forbidden_words=("猫", "न"), bad_endings=("的",)), tokenizer)
    assert {allowed(wording, tokenizer, ids) for ids in splits(tokenizer, text)} == {good}
