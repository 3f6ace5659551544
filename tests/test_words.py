"""Words and sentences: one definition for the check, vocabularies and scores."""

from __future__ import annotations

import pytest

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.data.sentences import split_sentences
from latentcap.data.words import content_words, is_unspaced, space_characters, split_words, unspaced_language

CASES = [
    ('A Dog\'s "red" ball, well-worn (no. 3).', ["a", "dog's", "red", "ball", "well-worn", "no", "3"]),
    (
        "IT\u2019S a T\u2011Junction: 3.5 km, 50% of 1,000",
        ["it's", "a", "t-junction", "3.5", "km", "50%", "of", "1,000"],
    ),
    ("<deid> and snake_case", ["<deid>", "and", "snake", "case"]),
    ("नमस्ते दुनिया, बिल्ली।", ["नमस्ते", "दुनिया", "बिल्ली"]),  # vowel signs and viramas
    ("Con me\u0300o ngo\u0302\u0300i", ["con", "m\u00e8o", "ng\u1ed3i"]),  # decomposed
    ("می\u200cخواهم یک", ["می\u200cخواهم", "یک"]),  # a joiner inside a word
    ("auto\u00admobile, col\u00b7legi", ["automobile", "col\u00b7legi"]),
    ("❤\ufe0f 👨\u200d👩\u200d👧 !?", []),  # selectors and joiners of emoji are no words
    ("кот; قطة; 고양이", ["кот", "قطة", "고양이"]),
]


@pytest.mark.parametrize(("text", "words"), CASES)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(("text", "words"), CASES)
def test_a_vocabulary_has_the_same_words(text: str, words: list[str]) -> None:
    tokenizer = CaptionTokenizer.train([text, "and more"])
    assert tokenizer.tokens(tokenizer.encode(text)) == words


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("一只iPhone手机，12", ["一", "只", "iphone", "手", "机", "12"]),
        ("ネコー々", ["ネ", "コ", "ー", "々"]),
        ("สุนัขนั่ง", ["สุ", "นั", "ข", "นั่", "ง"]),
        ("ឆ្មា", ["ឆ្មា"]),
        ("ကြောင်", ["ကြော", "င်"]),
    ],
)
def test_each_character_of_a_script_without_spaces_is_a_word(text: str, characters: list[str]) -> None:
    assert split_words(text) == characters
    assert split_words(space_characters(text)) == characters


def test_a_few_foreign_names_do_not_make_a_language() -> None:
    assert unspaced_language(["a dog"] * 9 + ["一只猫"]) is None
    assert unspaced_language(["a dog"] * 8 + ["一只猫"]) == "Chinese"
    assert not is_unspaced("a sign that says 猫")
    assert unspaced_language([]) is None


@pytest.mark.parametrize("min_frequency", [1, 2])
def test_a_vocabulary_of_words_is_refused_where_pieces_are_needed(min_frequency: int) -> None:
    texts = ["一只红色的猫坐在桌子上", "两个男人在海滩上踢足球", "一只猫"]
    with pytest.raises(UserError, match=r"Chinese.*--data\.tokenizer\.kind bpe"):
        CaptionTokenizer.train(texts, min_frequency=min_frequency)
    with pytest.raises(UserError, match=r"Chinese.*--data\.tokenizer\.kind bpe"):
        CaptionTokenizer.train(["a cat"]).extend(texts)
    bpe = CaptionTokenizer.train(texts, kind="bpe", vocab_size=1000, min_frequency=2)
    assert bpe.decode(bpe.encode(texts[1])) == texts[1]
    assert len(bpe.encode(texts[1])) > 1  # what occurs once is in pieces


def test_pieces_keep_marks_with_their_letters_and_texts_composed() -> None:
    bpe = CaptionTokenizer.train(["नमस्ते दुनिया"] * 2, kind="bpe", vocab_size=1000)
    assert bpe.tokens(bpe.encode("नमस्ते दुनिया")) == ["नमस्ते", " दुनिया"]
    assert bpe.decode(bpe.encode("Me\u0300o  3,5!\n")) == "M\u00e8o  3,5!\n"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "Heart is 2.5 cm. Dr. Moon agrees. No, e.g. Effusion!",
            ["Heart is 2.5 cm.", "Dr. Moon agrees.", "No, e.g. Effusion!"],
        ),
        ("lungs are clear . no effusion .", ["lungs are clear .", "no effusion ."]),
        ("Lungs clear.Heart normal (see above.) Yes?\nNo", ["Lungs clear.", "Heart normal (see above.)", "Yes?", "No"]),
        ("一只猫。两只狗！", ["一只猫。", "两只狗！"]),
        (" ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_content_words_name_something() -> None:
    assert content_words("The dog's ball isn't <deid> - it's under 2 trees.") == [
        "dog's",
        "ball",
        "isn't",
        "2",
        "trees",
    ]
    assert content_words("犬が走る") == list("犬が走る")
