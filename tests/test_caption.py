"""Captioning folders: one line for each image, nothing lost, nothing fatal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.cli.caption import main
from latentcap.cli.caption_input import read_contexts
from latentcap.config import ContextConfig
from latentcap.data.errors import UserError
from tests.helpers import Program, real_data, tiny_captioner


def test_every_image_gets_the_captioner_s_own_caption(caption: Program, photos: Path, model: Path) -> None:
    assert caption(photos, "--dtype", "float32") == 0
    files = ["blue.png", "deep/black.png", "deep/white.png", "green.png", "red.png"]
    assert [line["file"] for line in caption.lines] == files
    captioner = Captioner.from_pretrained(model, dtype=torch.float32)
    for line, known in zip(caption.lines, captioner.caption([photos / file for file in files]), strict=True):
        assert line["caption"] == known.text
        assert line["score"] == pytest.approx(known.score, abs=2e-3)
        assert set(line) == {"file", "caption", "score", "confidence"}
    assert caption.manifest["status"] == "complete"
    assert caption.manifest["counts"] == {"captioned": 5, "failed": 0, "skipped": 0}
    assert caption.manifest["settings"]["search"]["beam_size"] == captioner.search.beam_size


def test_unreadable_images_are_listed_and_not_fatal(
    caption: Program, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a_text.jpg").write_text("no image")
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "cut.png").write_bytes((photos / "red.png").read_bytes()[:70])
    assert caption(photos) == 3
    assert [line["file"] for line in caption.errors] == ["a_text.jpg", "cut.png", "gone.png"]
    assert all(line["error"] for line in caption.errors)
    assert len(caption.lines) == 5
    said = capsys.readouterr().err
    assert "cannot caption a_text.jpg: not an image" in said
    assert "5 captioned, 3 failed" in said
    for name in ("a_text.jpg", "gone.png", "cut.png"):
        (photos / name).unlink()
    assert caption(photos) == 0
    assert not (caption.folder / "errors.jsonl").exists()


def test_exit_code_where_nothing_can_be_captioned(caption: Program, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no image")
    assert caption(tmp_path / "x.jpg") == 1


def test_it_goes_on_where_it_was_stopped(
    caption: Program, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls, original = [], Captioner.caption_tensors

    def stop_at_the_first(self: Captioner, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments, **more)

    monkeypatch.setattr(Captioner, "caption_tensors", stop_at_the_first)
    with pytest.raises(KeyboardInterrupt):
        caption(photos, "--workers", "1")
    kept = len(caption.lines)  # the batches that were under way are finished: one, or the next one too
    assert kept in (2, 4)
    assert f"{kept} captioned" in capsys.readouterr().err
    with open(caption.output, "a") as file:
        file.write('{"file": "cut o')
    assert caption(photos) == 0
    assert sorted(line["file"] for line in caption.lines) == sorted({line["file"] for line in caption.lines})
    assert len(caption.lines) == 5
    assert f"resuming: {kept} already in" in capsys.readouterr().err
    assert len(calls) == 3
    assert caption(photos) == 0
    assert len(calls) == 3
    assert caption(photos, "--overwrite") == 0
    assert len(calls) == 6
    assert len(caption.lines) == 5


def test_a_file_of_another_kind_is_not_written_to(caption: Program, photos: Path) -> None:
    caption.output = photos / "red.png"
    before = caption.output.read_bytes()
    with pytest.raises(UserError, match="is what is to be captioned"):
        caption(photos)
    assert caption.output.read_bytes() == before


def test_search_settings_and_alternatives(caption: Program, photos: Path) -> None:
    options = ("--beam-size", "4", "--num-captions", "3", "--max-length", "3", "--min-length", "3")
    assert caption(photos / "red.png", *options, "--length-penalty", "0") == 0
    line = caption.lines[0]
    assert len(line["alternatives"]) == 2
    scores = [line["score"], *(other["score"] for other in line["alternatives"])]
    assert scores == sorted(scores, reverse=True)
    assert len(line["caption"].split()) == 3
    with pytest.raises(UserError, match="num_captions is 9"):
        caption(photos, "--num-captions", "9", "--beam-size", "4")


def test_a_head_budget(caption: Program, photos: Path, model: Path) -> None:
    assert caption(photos / "red.png", "--heads", "1+0") == 0
    few = Captioner.from_pretrained(model, heads="1+0").caption([photos / "red.png"])[0]
    assert caption.lines[0]["caption"] == few.text
    assert caption.lines[0]["score"] == pytest.approx(few.score, abs=1e-3)
    with pytest.raises(UserError, match=r'heads was "1\+0" and is "1\+1"'):
        caption(photos / "red.png", "--heads", "1+1")
    for wrong, message in (("4", r"such as 1\+1"), ("3+0", r"the model has 2\+2")):
        with pytest.raises(UserError, match=message):
            caption(photos / "red.png", "--overwrite", "--heads", wrong)


def test_context_for_all_and_for_each(caption: Program, photos: Path, tmp_path: Path) -> None:
    assert caption(photos, "--context", "the left circle") == 0
    assert {line["context"] for line in caption.lines} == {"the left circle"}
    contexts = tmp_path / "contexts.jsonl"
    contexts.write_text('{"file": "deep/white.png", "context": "two stars"}\n{"file": "red.png", "context": null}\n')
    assert caption(photos, "--contexts", contexts, "--overwrite") == 0
    assert {line["file"]: line.get("context") for line in caption.lines if "context" in line} == {
        "deep/white.png": "two stars"
    }
    contexts.write_text('{"file": "other.png", "context": "x"}\n')
    with pytest.raises(UserError, match=r"none of its files.*'other\.png'.*'blue\.png'"):
        caption(photos, "--contexts", contexts)
    contexts.write_text('{"image": "red.png"}\n')
    with pytest.raises(UserError, match="row 1"):
        caption(photos, "--contexts", contexts)


def test_contexts_may_be_a_table(tmp_path: Path) -> None:
    table = tmp_path / "contexts.csv"
    table.write_text("file;context\r\na.jpg;two stars\r\nb.jpg;\r\n", encoding="utf-16")
    assert read_contexts(table) == {"a.jpg": "two stars"}


def test_context_for_a_model_that_reads_none(caption: Program, photos: Path, tmp_path: Path) -> None:
    caption.model = tmp_path / "blind"
    tiny_captioner(context=ContextConfig(encoder="none")).save(caption.model)
    with pytest.raises(UserError, match="reads no context"):
        caption(photos, "--context", "red")
    assert not caption.output.exists()


def test_the_gallery_shows_what_this_run_and_earlier_ones_did(caption: Program, photos: Path, tmp_path: Path) -> None:
    assert caption(photos / "deep", "--quiet") == 0
    caption.output.write_text(caption.output.read_text().replace('"file": "', '"file": "deep/'))
    manifest = caption.output.with_name("captions.jsonl.run") / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(photos / "deep"), str(photos)))
    (photos / "broken.png").write_text("no image")
    assert caption(photos, "--gallery", tmp_path / "page" / "g.html") == 3
    page = (tmp_path / "page" / "g.html").read_text(encoding="utf-8")
    assert page.count('"caption": ') == 6
    assert page.count('"image": ') == 5
    assert "deep/white.png" in page
    assert "not an image" in page


def test_what_is_missing_is_blamed(caption: Program, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(UserError, match=r"does not exist: 'nothere\.jpg'"):
        main(["nothere.jpg", "--model", str(caption.model)])
    with pytest.raises(UserError, match=r"Give --output captions\.jsonl"):
        main(["deep", "--model", str(caption.model)])
    with pytest.raises(UserError, match=r"x\.json: .*--format coco"):
        main(["deep", "--output", "x.json", "--model", str(caption.model)])


def test_quiet_is_quiet(caption: Program, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption(photos, "--quiet") == 0
    said = capsys.readouterr()
    assert said.out + said.err == ""


def test_a_device_that_is_not_there(caption: Program, photos: Path) -> None:
    for device in ("cuda:99", "gpu"):
        with pytest.raises(UserError, match=f"device {device} cannot be used"):
            caption(photos, "--device", device)


def test_neither_lightning_nor_transformers_is_imported(caption: Program, photos: Path) -> None:
    code = (
        "import sys; from latentcap.cli.caption import main; main(sys.argv[1:]); "
        "print(*(m for m in ('lightning', 'transformers', 'datasets', 'pandas') if m in sys.modules))"
    )
    given = [photos / "red.png", "--model", caption.model, "--output", caption.output]
    done = subprocess.run([sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    said = done.stderr.splitlines()
    assert said[-1].startswith("1 captioned, 0 failed")
    assert len(said) <= 3
    assert len(caption.lines) == 1


@pytest.mark.slow
def test_a_tar_of_real_photographs(caption: Program) -> None:
    tar = real_data("rsicd") / "val-00000.tar"
    assert caption(tar, "--beam-size", "1", "--max-length", "3", "--batch-size", "64") == 0
    assert len(caption.lines) == 1094


def test_another_folder_on_the_same_output_is_refused(caption: Program, photos: Path, tmp_path: Path) -> None:
    """Its images are named by their path in it, so that they would be taken for those of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(photos / "deep", first)
    shutil.copytree(photos / "deep", second)
    assert caption(first) == 0
    with pytest.raises(UserError, match=r"holds captions of .*first, whose .*Those of .*second would be taken"):
        caption(second)
    assert caption(os.path.relpath(first)) == 0
    first.rename(tmp_path / "third")
    assert caption(tmp_path / "third") == 0  # moved
    assert caption(second, "--overwrite") == 0


def test_another_model_or_setting_on_the_same_output_is_refused(caption: Program, photos: Path, tmp_path: Path) -> None:
    assert caption(photos / "deep") == 0
    with pytest.raises(UserError, match=r"search\.beam_size was 3 and is 1\. Use those to go on, --overwrite"):
        caption(photos / "deep", "--beam-size", "1")
    with pytest.raises(UserError, match='prefix was "" and is "a photo: "'):
        caption(photos / "deep", "--prefix", "a photo: ")
    other = tmp_path / "other"
    tiny_captioner(context=ContextConfig(encoder="none")).save(other)
    caption.model = other
    with pytest.raises(UserError, match=r"other settings: the model was .*, as it was then; model was"):
        caption(photos / "deep")
    assert caption(photos / "deep", "--overwrite", "--prefix", "a photo: ") == 0
    assert all(line["caption"].startswith("a photo: ") for line in caption.lines)


@pytest.mark.slow
def test_processes_give_what_threads_give(caption: Program, photos: Path, tmp_path: Path) -> None:
    assert caption(photos, "--dtype", "float32") == 0
    threads = caption.output.read_bytes()
    caption.output = tmp_path / "processes.jsonl"
    assert caption(photos, "--dtype", "float32", "--devices", "2", "--workers", "2", "--device", "cpu") == 0
    assert [json.loads(line)["file"] for line in threads.splitlines()] == [line["file"] for line in caption.lines]
    assert threads == caption.output.read_bytes()


def test_a_dry_run_counts_and_names_and_writes_nothing(
    caption: Program, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "film.mp4").write_text("x")
    assert caption(photos, "--dry-run") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["blue.png", "deep/black.png", "deep/white.png", "green.png", "red.png"]
    assert "5 to caption, 0 captioned before, 1 skipped, 0 failed of 6 seen" in said.err
    assert not caption.output.parent.exists()


def test_only_what_failed_is_tried_again(caption: Program, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.png").write_text("no image")
    assert caption(photos, "--retry-failed") == 0
    assert "nothing has failed" in capsys.readouterr().err
    (photos / "film.mp4").write_text("x")
    assert caption(photos) == 3
    skipped, manifest = (caption.folder / name for name in ("skipped.jsonl", "manifest.json"))
    of_all = skipped.read_text(), json.loads(manifest.read_text())["input"]
    Image.new("RGB", (8, 8)).save(photos / "broken.png")
    Image.new("RGB", (8, 8)).save(photos / "later.png")
    assert caption(photos, "--retry-failed", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == ["broken.png"]
    assert caption(photos, "--retry-failed") == 0
    assert [line["file"] for line in caption.lines][5:] == ["broken.png"]
    assert not (caption.folder / "errors.jsonl").exists()
    assert (skipped.read_text(), json.loads(manifest.read_text())["input"]) == of_all  # of the run that saw all
    with pytest.raises(UserError, match="give one of them"):
        caption(photos, "--retry-failed", "--overwrite")


def test_several_captions_in_one_text(model: Path, photos: Path) -> None:
    command = [str(photos / "red.png"), "--model", str(model), "--format", "txt", "--beam-size", "3"]
    assert main([*command, "--num-captions", "3", "--trigger", "ohwx"]) == 0
    lines = (photos / "red.txt").read_text().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("ohwx, ") for line in lines)


def test_ids_of_a_table_reach_coco_s_results_and_no_other_output(caption: Program, photos: Path) -> None:
    table = photos / "t.csv"
    table.write_text("image,image_id\nred.png,7\n")
    assert caption(table) == 0
    assert set(caption.lines[0]) == {"file", "caption", "score", "confidence"}
    caption.output = caption.output.with_suffix(".json")
    assert caption(table, "--format", "coco") == 0
    assert [row["image_id"] for row in json.loads(caption.output.read_text())] == [7]


def test_captions_of_images_named_alone_are_printed(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    assert main(["red.png", "--model", str(model)]) == 0
    one = capsys.readouterr().out.splitlines()
    assert len(one) == 1
    assert main(["red.png", "blue.png", "--model", str(model)]) == 0
    two = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in two] == ["red.png", "blue.png"]
    assert two[0].partition(": ")[2] == one[0]
    Path("broken.png").write_text("no image")
    assert main(["broken.png", "--model", str(model)]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("cannot caption broken.png: ")
    assert "listed in" not in said.err  # nothing is kept
    assert sorted(path.name for path in photos.iterdir()) == ["blue.png", "broken.png", "deep", "green.png", "red.png"]
    assert main(["red.png", "--num-captions", "3", "--words", "--model", str(model)]) == 0
    several = capsys.readouterr().out.splitlines()
    assert several[::2][0] == one[0]
    assert len(set(several[::2])) == 3
    assert all(re.fullmatch(r"  (\S+ [01]\.\d\d ?)+", line) for line in several[1::2])
    with pytest.raises(UserError, match="Give --output"):  # of a folder they are a list to keep
        main([".", "--model", str(model)])
