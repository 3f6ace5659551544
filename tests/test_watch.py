"""Captions of a live stream: always the newest frame, its latency, and how it ends."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from latentcap.batch.live import LiveCaption
from latentcap.cli.watch import main, summary
from latentcap.data.errors import UserError
from latentcap.data.live import LiveFrame, LiveVideo
from tests.helpers import draw_clip

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", ["red", "lime", "blue"], seconds=0.4)


def test_only_the_newest_frame_is_kept(clip: Path) -> None:
    with LiveVideo(str(clip)) as video:
        first = video.newest()
        time.sleep(0.6)
        later = video.newest()
    assert first is not None
    assert later is not None
    assert later.second - first.second >= 0.4  # those in between are gone
    assert later.arrived <= time.perf_counter()


def test_a_file_is_played_at_its_own_speed_to_its_end(clip: Path) -> None:
    began = time.perf_counter()
    with LiveVideo(str(clip)) as video:
        seconds = [frame.second for frame in iter(video.newest, None)]
    assert time.perf_counter() - began > 1.0
    assert seconds == sorted(set(seconds))
    assert seconds[-1] == pytest.approx(1.1)


def test_it_prints_captions_with_their_latency_and_a_summary(
    model: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(clip), "--model", str(model), "--heads", "1+1", "--captions", "2"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r" *\d+\.\d\d s  .+  \(\d+ ms\)", line) for line in lines)
    assert re.search(r"2 captions in .* from frame to caption p50 [\d.]+ ms, p95 [\d.]+ ms", printed.err)


def test_the_summary_counts() -> None:
    times = ((0.030, 0.020), (0.010, 0.010), (0.020, 0.015))
    told = summary([LiveCaption(0.0, "a", latency, computing) for latency, computing in times], 0.5)
    assert "3 captions in 0.5 s, 6.0 a second" in told
    assert "from frame to caption p50 20.0 ms, p95 29.0 ms, of which computing p50 15.0 ms, p95 19.5 ms" in told
    assert summary([], 1.0) == "no frame was captioned"


def test_interrupted_it_ends_with_the_summary(
    model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, asked = LiveVideo.newest, []

    def second_time_interrupted(video: LiveVideo) -> LiveFrame | None:
        asked.append(video)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGINT)
        return newest(video)

    monkeypatch.setattr(LiveVideo, "newest", second_time_interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background ignore it
    try:
        assert main([str(clip), "--model", str(model)]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert "1 captions in" in capsys.readouterr().err
    assert not asked[0]._thread.is_alive()


@pytest.mark.parametrize("name", ["gone.mp4", "text.mp4"])
def test_what_is_no_stream_is_named(model: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    with pytest.raises(UserError, match=rf"{name}: cannot be opened as a video"):
        main([str(tmp_path / name), "--model", str(model)])
