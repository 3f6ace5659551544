"""The tokenizer: ids, round trips, files, and the mistakes people make with them."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import pytest

from latentcap.data.batches.tokenizer import SPECIAL_TOKENS, CaptionTokenizer
from latentcap.data.errors import UserError

CAPTIONS = [
    "A T-junction near the road.",
    "It's a road , near a river !",
    "the RIVER is 3.5 km wide; the 2 banks are 50% green...",
]


@pytest.fixture(scope="module")
def words() -> CaptionTokenizer:
    return CaptionTokenizer.train(CAPTIONS)


@pytest.fixture(scope="module")
def bpe() -> CaptionTokenizer:
    return CaptionTokenizer.train(CAPTIONS * 3, kind="bpe", vocab_size=300)


def test_ids_start_with_the_special_tokens_then_go_by_frequency_then_alphabet(words: CaptionTokenizer) -> None:
    assert words.vocab[:9] == [*SPECIAL_TOKENS, "a", "the", "near", "river", "road"]
    assert words.vocab[9:] == sorted(words.vocab[9:])
    assert (words.pad_id, words.bos_id, words.eos_id, words.unk_id) == (0, 1, 2, 3)
    assert len(words) == len(words.vocab)
    assert words.token_to_id("road") == 8
    assert words.token_to_id("sea") is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("It's a t-junction.", "it's a t-junction"),
        ("IT\u2019S a T\u2011Junction", "it's a t-junction"),
        ("3.5 km; (50%) -- the river's", "3.5 km 50% the"),
        ("...'road'...", "road"),
        ("a/the,road", "a the road"),
        ("!?", ""),
        ("", ""),
    ],
)
def test_words_lose_case_and_punctuation(words: CaptionTokenizer, text: str, plain: str) -> None:
    assert words.decode(words.encode(text)) == plain


def test_words_equal_what_coco_metrics_compare() -> None:
    """On plain captions the words are those of COCO's tokenisation: lower case, without its punctuation list."""
    caption = "Two dogs , one brown -- one black , run ; they look happy : a t-junction is near ..."
    tokenizer = CaptionTokenizer.train([caption])
    punctuation = {",", "--", ";", ":", "...", "."}
    assert tokenizer.decode(tokenizer.encode(caption)).split() == [
        word for word in caption.lower().split() if word not in punctuation
    ]


def test_special_tokens_inside_a_caption_are_text(words: CaptionTokenizer, bpe: CaptionTokenizer) -> None:
    for tokenizer in (words, bpe, pickle.loads(pickle.dumps(words))):
        assert not {0, 1, 2} & set(tokenizer.encode("a <eos> road <pad> <bos>"))
    assert bpe.decode(bpe.encode("a <eos> road")) == "a <eos> road"


def test_encode_caption_frames_and_cuts_but_keeps_the_end(words: CaptionTokenizer, bpe: CaptionTokenizer) -> None:
    a, near, road = (words.token_to_id(word) for word in ("a", "near", "road"))
    assert words.encode_caption("a road near", 10) == [1, a, road, near, 2]
    assert words.encode_caption("a road near", 4) == [1, a, road, 2]
    assert words.encode("a road near", max_length=2) == [a, road]
    assert len(bpe.encode_caption(CAPTIONS[2], 8)) == 8
    assert bpe.encode_caption(CAPTIONS[2], 8)[-1] == bpe.eos_id


def test_decode_stops_at_the_end_and_skips_special_tokens(words: CaptionTokenizer, bpe: CaptionTokenizer) -> None:
    for tokenizer, text in ((words, "a road"), (bpe, "A road.")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode([1, *ids, 3, 2, *ids, 0, 0]) == text
        assert tokenizer.decode([]) == ""


def test_tokens_name_every_id(words: CaptionTokenizer, bpe: CaptionTokenizer) -> None:
    assert words.tokens([1, 4, 8, 3, 2]) == ["<bos>", "a", "road", "<unk>", "<eos>"]
    assert "".join(bpe.tokens([1, *bpe.encode("A road."), 2])) == "<bos>A road.<eos>"


@pytest.mark.parametrize("text", ["  Two  spaces\n", "Ünïcode \u4e2d\u6587 \U0001f600", "never, SEEN: (x)!", "it's"])
def test_bpe_is_lossless(bpe: CaptionTokenizer, text: str) -> None:
    assert bpe.decode(bpe.encode(text)) == text
    assert len(bpe) <= 300


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_training_is_deterministic(kind: str) -> None:
    first, second, other = (
        CaptionTokenizer.train(texts, kind=kind, vocab_size=280)  # type: ignore[arg-type]
        for texts in (CAPTIONS, CAPTIONS[::-1], CAPTIONS[:1])
    )
    assert first.vocab == second.vocab
    assert first.content_hash == second.content_hash != other.content_hash


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_save_and_load_keep_everything(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tokenizer: CaptionTokenizer = request.getfixturevalue(kind)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    assert os.listdir(tmp_path) == ["tokenizer.json"]
    for copy in (CaptionTokenizer.load(path), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.vocab == tokenizer.vocab
        assert copy.kind == tokenizer.kind
        assert copy.content_hash == tokenizer.content_hash
        assert copy.encode(CAPTIONS[1]) == tokenizer.encode(CAPTIONS[1])


def test_min_frequency_drops_rare_words() -> None:
    tokenizer = CaptionTokenizer.train(CAPTIONS, min_frequency=2)
    assert tokenizer.vocab[4:] == ["a", "the", "near", "river", "road"]
    assert tokenizer.encode("a junction") == [4, tokenizer.unk_id]


def test_extend_keeps_ids_and_appends(words: CaptionTokenizer) -> None:
    longer = words.extend(["a lake", "a lake and a boat", "a pier"], min_frequency=1)
    assert longer.vocab == [*words.vocab, "lake", "and", "boat", "pier"]
    assert words.extend(["a lake", "a lake, a boat"], min_frequency=2).vocab == [*words.vocab, "lake"]
    assert words.extend(["a road"]).content_hash == words.content_hash
    assert longer.encode("a lake") == [4, len(words)]


def test_bpe_cannot_be_extended(bpe: CaptionTokenizer) -> None:
    with pytest.raises(UserError, match="cannot be extended"):
        bpe.extend(["a lake"])


@pytest.mark.parametrize("kind", ["word", "bpe"])
@pytest.mark.parametrize("texts", [[], ["", "  "], ["...", "!?"]])
def test_captions_without_words_are_refused(kind: str, texts: list[str]) -> None:
    with pytest.raises(UserError, match="no words"):
        CaptionTokenizer.train(texts, kind=kind)  # type: ignore[arg-type]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="most frequent occurs 3 times"):
        CaptionTokenizer.train(CAPTIONS, min_frequency=5)
    with pytest.raises(UserError, match="at least 260"):
        CaptionTokenizer.train(CAPTIONS, kind="bpe", vocab_size=100)
    with pytest.raises(UserError, match="Did you mean 'word'"):
        CaptionTokenizer.train(CAPTIONS, kind="words")  # type: ignore[arg-type]


def test_files_that_are_no_tokenizer_are_refused(words: CaptionTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match=re.escape(str(path)) + ".*No such file"):
        CaptionTokenizer.load(path)
    with pytest.raises(UserError, match="Is a directory"):
        CaptionTokenizer.load(tmp_path)
    words.save(path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        CaptionTokenizer.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="damaged"):
        CaptionTokenizer.load(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="pickle"):
        CaptionTokenizer.load(path)
    content = json.loads(whole)
    content["added_tokens"] = []
    del content["model"]["vocab"]["<eos>"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="lacks the special tokens <eos>:"):
        CaptionTokenizer.load(path)


@pytest.mark.skipif("LATENTCAP_DATA" not in os.environ, reason="set LATENTCAP_DATA to a folder with the RSICD tars")
def test_aerial_captions_round_trip() -> None:
    import tarfile

    with tarfile.open(Path(os.environ["LATENTCAP_DATA"]) / "rsicd" / "val-00000.tar") as tar:
        members = [member for member in tar if member.name.endswith(".json")]
        captions = [text for member in members for text in json.load(tar.extractfile(member))["captions"]]  # type: ignore[arg-type]
    words, bpe = CaptionTokenizer.train(captions), CaptionTokenizer.train(captions, kind="bpe", vocab_size=1000)
    for caption in captions[:500]:
        assert bpe.decode(bpe.encode(caption)) == caption
        plain = words.decode(words.encode(caption))
        assert words.unk_id not in words.encode(caption)
        assert words.encode(plain) == words.encode(caption)


REPORTS = ["No effusion. Seen in <deid>.", "Heart of 2.5 cm. No <deid> effusion.", "No change"]


def test_sentences_keep_their_full_stops(tmp_path: Path) -> None:
    words = CaptionTokenizer.train(REPORTS, sentences=True)
    assert words.decode(words.encode("No effusion. Heart of 2.5 cm .")) == "no effusion. heart of 2.5 cm."
    words.save(tmp_path / "tokenizer.json")
    loaded = CaptionTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode("No change.") == words.encode("No change.")
    assert loaded.extend(["A scar."]).decode(loaded.extend(["A scar."]).encode("A scar. No.")) == "a scar. no."
    plain = CaptionTokenizer.train(REPORTS)
    assert plain.token_to_id(".") is None
    extended = plain.extend(["A scar."], sentences=True)
    assert extended.vocab[: len(plain)] == plain.vocab
    assert extended.decode(extended.encode("A scar. No.")) == "a scar. no."


@pytest.mark.parametrize("settings", [{}, {"sentences": True}, {"kind": "bpe", "vocab_size": 300}])
def test_a_deidentified_place_is_one_token_that_is_never_generated(settings: dict[str, object]) -> None:
    tokenizer = CaptionTokenizer.train(REPORTS, **settings)  # type: ignore[arg-type]
    deid = tokenizer.token_to_id("<deid>")
    assert deid in tokenizer.never_generated
    assert tokenizer.encode("No <deid> effusion").count(deid) == 1
    assert tokenizer.decode(tokenizer.encode("seen in <deid>")).endswith("in <deid>")
    assert len(tokenizer) <= 300
    without = CaptionTokenizer.train(["no effusion"], **settings)  # type: ignore[arg-type]
    assert without.never_generated == (without.pad_id, without.bos_id, without.unk_id)
