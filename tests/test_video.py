"""Videos: frames sampled by time, alike ones merged into scenes, subtitles that parsers read, what is no video."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import srt
from PIL import Image

from latentcap.batch.inputs import Inputs
from latentcap.batch.outputs.subtitles import as_srt, as_vtt
from latentcap.batch.scenes import find_scenes
from latentcap.captioner import Captioner
from latentcap.cli.caption import main
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.data.video import parse_interval, samples
from tests.helpers import draw_clip, picture, tiny_captioner

av = pytest.importorskip("av")
SHOTS = (picture(seed=0), picture(seed=1), picture(seed=0))  # the second has another caption


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", SHOTS)


@pytest.fixture
def caption(model: Path) -> Callable[..., int]:
    return lambda *given: main(["--model", str(model), "--quiet", *map(str, given)])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_cues(path: Path) -> list[tuple[float, float, str]]:
    """Start, end and text of each cue, by FFmpeg's own reader."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        base = float(stream.time_base)
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [
            (packet.pts * base, (packet.pts + packet.duration) * base, bytes(packet).decode()) for packet in packets
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_frames_are_sampled_by_time(tmp_path: Path, suffix: str) -> None:
    path = draw_clip(tmp_path / f"clip{suffix}", ["red", "lime", "blue"])
    found = list(samples(ImageRef(str(path)), 0.75))
    assert [(round(one.start, 2), round(one.end, 2)) for one in found] == [(0, 0.8), (0.8, 1.5), (1.5, 2.3), (2.3, 3)]
    brightest = [max(range(3), key=one.image.getpixel((80, 60)).__getitem__) for one in found]  # type: ignore[union-attr]
    assert brightest == [0, 0, 1, 2]


@pytest.mark.parametrize(("text", "expected"), [("2s", 2), ("0.5", 0.5), ("500ms", 0.5), ("1.5 min", 90)])
def test_times(text: str, expected: float) -> None:
    assert parse_interval(text) == expected


@pytest.mark.parametrize("text", ["0s", "-1", "2h", "soon", ""])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_interval(text)


def test_frames_that_look_alike_are_one_scene(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner, captioned = tiny_captioner(), []
    caption_memory = Captioner.caption_memory

    def spy(self: Captioner, memory: Any, views: list[Any], *rest: Any) -> Any:
        captioned.append(len(views))
        return caption_memory(self, memory, views, *rest)

    monkeypatch.setattr(Captioner, "caption_memory", spy)
    for frames in (1, 8):  # the scenes do not depend on how many frames are looked at together
        monkeypatch.setattr("latentcap.batch.scenes.FRAMES", frames)
        captioned.clear()
        scenes = list(find_scenes(captioner, samples(ImageRef(str(clip)), 0.2), None, captioner.search))
        assert [(scene.start, scene.end) for scene in scenes] == [(0, 1), (1, 2), (2, 3)]
        assert sum(captioned) == 3  # of 15
        assert scenes[0].caption.text == scenes[2].caption.text != scenes[1].caption.text


def test_json_lines_hold_scenes_with_times_beside_images(
    clip: Path, tmp_path: Path, caption: Callable[..., int]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    SHOTS[1].save(folder / "photo.png")
    out = tmp_path / "out.jsonl"
    assert caption(folder, "--every", "0.5s", "--output", out, "--gallery", tmp_path / "page.html") == 0
    film, photo = lines(out)
    assert (film["file"], photo["file"]) == ("clip.mp4", "photo.png")
    assert [(one["start"], one["end"]) for one in film["segments"]] == [(0, 1), (1, 2), (2, 3)]
    assert film["caption"] == film["segments"][0]["caption"]
    assert {"caption", "score", "confidence"} <= film["segments"][1].keys()
    assert "segments" not in photo
    page = (tmp_path / "page.html").read_text()
    assert all(f"clip.mp4 00:00:0{second}.000" in page for second in range(3))


def test_a_video_is_resumed_as_images_are(clip: Path, tmp_path: Path, caption: Callable[..., int]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (folder / name).write_bytes(clip.read_bytes())
    out = tmp_path / "out.jsonl"
    assert caption(folder, "--every", "1s", "--output", out) == 0
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert caption(folder, "--every", "1s", "--output", out) == 0
    assert out.read_bytes() == whole
    with pytest.raises(UserError, match="every was 1"):
        caption(folder, "--every", "2s", "--output", out)


def test_each_video_is_a_block_of_its_own(clip: Path) -> None:
    from latentcap.batch.run import next_block

    items = list(Inputs([str(clip)], videos=True)) * 2
    assert [len(next_block(iter(items), 128)), items[0].video] == [1, True]


def test_subtitles_beside_videos_are_read_by_parsers(clip: Path, tmp_path: Path, caption: Callable[..., int]) -> None:
    for name in ("a.mp4", "deep/b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(clip.read_bytes())
    SHOTS[1].save(tmp_path / "in" / "photo.png")
    assert caption(tmp_path / "in", "--every", "0.5", "--format", "srt") == 0
    assert caption(tmp_path / "in", "--every", "0.5", "--format", "vtt", "--output", tmp_path / "out") == 0
    for path in (tmp_path / "in" / "deep" / "b.srt", tmp_path / "out" / "deep" / "b.vtt"):
        cues = read_cues(path)
        assert [(start, end) for start, end, _ in cues] == [(0, 1), (1, 2), (2, 3)]
        assert all(text for _, _, text in cues)
    parsed = list(srt.parse((tmp_path / "in" / "a.srt").read_text(), ignore_errors=False))
    assert [(one.index, one.start.total_seconds()) for one in parsed] == [(1, 0), (2, 1), (3, 2)]
    assert sorted(path.name for path in tmp_path.rglob("*.vtt")) == ["a.vtt", "b.vtt"]


def test_the_name_of_the_output_may_be_that_of_the_subtitles(
    clip: Path, tmp_path: Path, caption: Callable[..., int]
) -> None:
    out = tmp_path / "here.vtt"
    assert caption(clip, "--every", "1s", "--output", out) == 0
    assert out.read_text().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")


def test_what_subtitles_would_stumble_over(tmp_path: Path) -> None:
    odd = [
        {"start": 0.0, "end": 3_661.5, "caption": "a <b> & --> c\n\nsecond line"},
        {"start": 3_661.5, "end": 3_662.0, "caption": "é 一"},
    ]
    (tmp_path / "x.srt").write_text(as_srt(odd) + "\n")
    (tmp_path / "x.vtt").write_text(as_vtt(odd) + "\n")
    assert [(start, end) for start, end, _ in read_cues(tmp_path / "x.vtt")] == [(0, 3661.5), (3661.5, 3662)]
    assert "a &lt;b&gt; &amp; --&gt; c\nsecond line" in (tmp_path / "x.vtt").read_text()
    first, second = srt.parse((tmp_path / "x.srt").read_text())
    assert (first.content, second.content) == ("a <b> & --> c\nsecond line", "é 一")


def make_broken(folder: Path, clip: Path) -> dict[str, str]:
    """Files that are no whole video, and what is to be said of each."""
    data = clip.read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    whole = draw_clip(folder / "cut.mkv", SHOTS).read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video at all\n" * 50)
    (folder / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{clip}\n#EXT-X-ENDLIST\n")
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    sound.seek(0)
    with av.open(sound) as source, av.open(str(folder / "sound.mkv"), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
    return {
        "cut.mkv": "cut off, after",
        "cut.mp4": "not a whole video",
        "empty.mp4": "the file is empty",
        "list.mp4": "not a whole video",
        "sound.mkv": "it has no video stream",
        "text.mp4": "not a whole video",
    }


def test_what_is_no_whole_video_is_a_counted_error(clip: Path, tmp_path: Path, caption: Callable[..., int]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    expected = make_broken(folder, clip)
    (folder / "whole.mp4").write_bytes(clip.read_bytes())
    assert caption(folder, "--every", "1s", "--output", tmp_path / "out.jsonl") == 3
    errors = {record["file"]: record["error"] for record in lines(tmp_path / "out.jsonl.run" / "errors.jsonl")}
    assert sorted(errors) == sorted(expected)
    for name, said in expected.items():
        assert said in errors[name], (name, errors[name])
    summary = json.loads((tmp_path / "out.jsonl.run" / "summary.json").read_text())
    assert (summary["captioned"], summary["failed"]) == (1, len(expected))


def test_without_a_time_videos_are_skipped_with_what_to_do(
    clip: Path, tmp_path: Path, caption: Callable[..., int]
) -> None:
    (item,) = Inputs([str(clip.parent)])
    assert "--every 2s" in item.skipped
    assert caption(clip, "--output", tmp_path / "out.jsonl") == 1
    assert "--every 2s" in lines(tmp_path / "out.jsonl.run" / "errors.jsonl")[0]["error"]
    with pytest.raises(UserError, match="add --every 2s"):
        caption(clip, "--format", "srt")


def test_formats_of_images_take_no_videos(clip: Path, tmp_path: Path, caption: Callable[..., int]) -> None:
    for kind in ("hf", "webdataset"):
        with pytest.raises(UserError, match=f"--format {kind} holds images"):
            caption(clip, "--every", "1s", "--format", kind, "--output", tmp_path / kind)


def test_subtitles_are_not_added_to(clip: Path, caption: Callable[..., int]) -> None:
    with pytest.raises(UserError, match="kept"):
        caption(clip, "--every", "1s", "--format", "srt", "--existing", "append")


def test_a_film_that_begins_late_is_whole(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "late.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_image(Image.new("RGB", (160, 120), "red"))
            frame.pts = 100 + number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = list(samples(ImageRef(str(tmp_path / "late.mkv")), 1))
    assert [(sample.start, round(sample.end, 1)) for sample in found] == [(0, 1), (1, 2)]


def test_a_film_behind_an_address(clip: Path) -> None:
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.pipe_file("/films/clip.mp4", clip.read_bytes())
    found = samples(ImageRef("memory://films/clip.mp4"), 1)
    assert [sample.start for sample in found] == [sample.start for sample in samples(ImageRef(str(clip)), 1)]
    system.rm("/films", recursive=True)


def test_subtitles_are_no_images(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.srt", "clip.vtt"):
        (tmp_path / name).write_text("1\n00:00:00,000 --> 00:00:01,000\na\n")
    assert [item.name for item in Inputs([str(tmp_path)])] == ["clip.mp4"]


def test_turned_videos_are_upright(tmp_path: Path) -> None:
    plain = draw_clip(tmp_path / "plain.mp4", ["red"], seconds=0.5)
    with av.open(str(plain)) as source, av.open(str(tmp_path / "turned.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    (found,) = samples(ImageRef(str(tmp_path / "turned.mp4")), 1)
    assert isinstance(found.image, Image.Image)
    assert found.image.size == (120, 160)
