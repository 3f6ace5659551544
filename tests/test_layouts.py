"""Tables and annotations as strangers write them: separators, quotes, layouts of captions, ids, paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentcap.data.errors import UserError
from latentcap.data.readers import Fields, read_examples
from latentcap.data.readers.captions import to_captions
from latentcap.data.readers.delimited import iter_delimited
from latentcap.data.readers.fields import Skipped, to_number


def table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(path: Path) -> list[list[object]]:
    return [list(row.values()) for row in iter_delimited(path)]


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_header_tells_the_separator(tmp_path: Path, separator: str, suffix: str, encoding: str) -> None:
    lines = [["file_name", "text"], ["x.jpg", f'"one{separator} two"'], ["y.jpg", "trois \u00e9"]]
    text = "\r\n".join(separator.join(line) for line in lines)
    path = table(tmp_path / f"t.{suffix}", text.encode(encoding))
    assert rows(path) == [["x.jpg", f"one{separator} two"], ["y.jpg", "trois é"]]


def test_separators_with_blanks_and_the_line_that_excel_writes(tmp_path: Path) -> None:
    path = table(tmp_path / "results.csv", "image_name| comment_number| comment\n0.jpg| 0| a box , red .\n")
    (example,) = read_examples(path)
    assert example.captions == ("a box , red .",)
    assert rows(table(tmp_path / "e.csv", "sep=;\r\nimage;caption\r\na.jpg;b, c\r\n")) == [["a.jpg", "b, c"]]
    with pytest.raises(UserError, match=r"results\.csv, line 3: 2 fields, where the header has 3 .*A \| is missing"):
        read_examples(table(path, path.read_text() + "3.jpg| 4   a dog .\n"))


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("tsv", "\t"), ("csv", ";")])
def test_quotes_that_do_not_close_swallow_no_row(tmp_path: Path, suffix: str, mark: str) -> None:
    text = (
        f'image{mark}caption\n0.jpg{mark}a 5" pipe\n1.jpg{mark}"the sign\n2.jpg{mark}plain\n3.jpg{mark}"whole ""x"""\n'
    )
    captions = [row[1] for row in rows(table(tmp_path / f"t.{suffix}", text))]
    assert captions == ['a 5" pipe', '"the sign', "plain", 'whole "x"']


def test_a_quote_that_cannot_be_understood_is_an_error_with_its_line(tmp_path: Path) -> None:
    text = 'image,caption\n0.jpg,"a, b"\n1.jpg,"the sign, red\n2.jpg,plain\n3.jpg,"x, y"\n'
    with pytest.raises(UserError, match=r"t\.csv, line 3: a quote opens here"):
        read_examples(table(tmp_path / "t.csv", text))


def test_captions_may_have_several_lines_in_quotes(tmp_path: Path) -> None:
    text = 'image,caption\n0.jpg,"Findings: clear.\nImpression, normal."\n1.jpg,x\n'
    assert rows(table(tmp_path / "t.csv", text))[0][1] == "Findings: clear.\nImpression, normal."


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="several columns are called caption"):
        rows(table(tmp_path / "t.csv", "image,caption,caption\na.jpg,x,y\n"))


@pytest.mark.parametrize(
    ("text", "number"), [("1,5", 1.5), ("-0,125", -0.125), ("1,234", None), ("3.5", 3.5), ("1,2,3", None)]
)
def test_decimal_commas(text: str, number: float | None) -> None:
    assert to_number(text) == number


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ({"raw": "a"}, ("a",)),
        ([{"raw": "a"}, {"raw": "b", "tokens": ["b"]}], ("a", "b")),
        ({"raw": ["a", "b"], "tokens": [["a"], ["b"]]}, ("a", "b")),
        ({"text": "a"}, ("a",)),
        ({"en": ["a", "b"], "de": ["c"]}, ("a", "b")),
        ({"fr": "a", "de": None}, ("a",)),
        ('["a", "b, c"]', ("a", "b, c")),
        ("['a', \"it's\"]", ("a", "it's")),
        ('{"raw": "a"}', ("a",)),
        ('[{"caption": "a"}]', ("a",)),
        ("[laughs] a man", ("[laughs] a man",)),
        ('["a" sign]', ('["a" sign]',)),
        ("{braces}", ("{braces}",)),
        ("['a' 'b']", ("a", "b")),
        ("['a'\n \"it's\"]", ("a", "it's")),
        ("[]", ()),
        (None, ()),
        ([], ()),
        (["a", None, " "], ("a", "")),
    ],
)
def test_known_layouts_of_captions(value: object, captions: tuple[str, ...]) -> None:
    assert to_captions(value) == captions


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"foo": "a", "bar": 1}, "keys foo, bar"),
        ({"de": "a", "fr": "b"}, r"several languages \(de, fr\).*caption=COLUMN\.de"),
        ([3, 17, 4], "numbers"),
        ([["a", "dog"]], "lists of words"),
        (b"a", "bytes"),
        (3, "'3', no text but a number"),
        (True, "'True', no text but a yes or no"),
    ],
)
def test_other_layouts_are_refused_by_name(value: object, said: str) -> None:
    with pytest.raises(UserError, match=rf"^row 1: .*{said}"):
        to_captions(value, "row 1")


def test_a_field_may_be_inside_a_column(tmp_path: Path) -> None:
    row = {"image": "a.jpg", "captions": {"de": "ein Hund", "fr": "un chien"}}
    path = table(tmp_path / "t.jsonl", json.dumps(row))
    assert read_examples(path, fields=Fields(caption="captions.fr"))[0].captions == ("un chien",)


# COCO


def coco(path: Path, ids: list[object], annotations: list[dict[str, object]]) -> Path:
    images = [{"id": id, "file_name": f"{number}.jpg"} for number, id in enumerate(ids)]
    return table(path / "captions.json", json.dumps({"images": images, "annotations": annotations}))


@pytest.mark.parametrize(
    ("ids", "other"),
    [(["0", "1"], [0, 1]), ([7, 8], ["7", "8"]), (["0007", 8.0], [7, "008"]), (["a", "b"], ["a", "b"])],
)
def test_ids_match_as_text(tmp_path: Path, ids: list[object], other: list[object]) -> None:
    annotations = [{"image_id": id, "caption": f"caption {n}"} for n, id in enumerate(other)]
    assert [e.captions for e in read_examples(coco(tmp_path, ids, annotations))] == [("caption 0",), ("caption 1",)]


def test_ids_that_differ_in_zeros_alone_stay_apart(tmp_path: Path) -> None:
    annotations: list[dict[str, object]] = [{"image_id": "007", "caption": "a"}, {"image_id": "7", "caption": "b"}]
    assert [e.captions for e in read_examples(coco(tmp_path, ["7", "007"], annotations))] == [("b",), ("a",)]


def test_annotations_without_a_caption_or_an_image_are_named(tmp_path: Path) -> None:
    annotations: list[dict[str, object]] = [
        {"image_id": 0, "bbox": [0, 0, 1, 1]},
        {"image_id": 1, "caption": "a b"},
        {"image_id": 99, "caption": "lost"},
    ]
    skipped: list[Skipped] = []
    examples = read_examples(coco(tmp_path, [0, 1, 1], annotations), skipped=skipped)
    assert [e.captions for e in examples] == [(), ("a b",)]
    assert [(item.reason.split(":")[0], item.expected) for item in skipped] == [
        ("1.jpg has the same id, 1", False),
        ("it has no caption (but boxes, keypoints or the like)", True),
        ("a caption without an image", False),
    ]
    with pytest.raises(UserError, match=r"annotations have no captions \(keys: image_id, bbox\)"):
        read_examples(coco(tmp_path, [0], annotations[:1]))


def test_paths_from_windows(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.jpg").write_bytes(b"x")
    for name in ("images\\0.jpg", ".\\images\\0.jpg"):
        (example,) = read_examples(table(tmp_path / "t.jsonl", json.dumps({"file_name": name, "text": "x"})))
        assert example.images[0].read_bytes() == b"x"
        assert example.id == "images/0.jpg"
    (tmp_path / "a\\b.jpg").write_bytes(b"y")
    (example,) = read_examples(table(tmp_path / "t.jsonl", json.dumps({"file_name": "a\\b.jpg", "text": "x"})))
    assert example.images[0].read_bytes() == b"y"


def test_images_are_found_in_a_folder_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.jpg").write_bytes(b"x")
    (example,) = read_examples(table(tmp_path / "t.csv", "image,caption\n0.jpg,x\n"))
    assert example.images[0].read_bytes() == b"x"


def test_images_are_found_in_the_one_folder_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "flickr30k_images").mkdir()
    (tmp_path / "flickr30k_images" / "0.jpg").write_bytes(b"x")
    path = table(tmp_path / "results.csv", "image_name| comment_number| comment\n0.jpg| 0| x\n")
    assert read_examples(path)[0].images[0].read_bytes() == b"x"
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails" / "0.jpg").write_bytes(b"y")
    assert read_examples(path)[0].images[0].path == str(tmp_path / "0.jpg")
