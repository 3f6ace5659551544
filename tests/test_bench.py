"""The benchmark program: that it runs, what it writes, and that the twin it compares with is a fair one."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from latentcap.bench import training as bench_training
from latentcap.bench.captioning import pictures
from latentcap.bench.data import write_table
from latentcap.bench.precision import Task
from latentcap.bench.reading import read as measure_reading
from latentcap.bench.timing import Setting, Spread, in_turns, number, ratio, shown
from latentcap.bench.uncompressed import FullAttention
from latentcap.cli.bench import main
from latentcap.data.errors import UserError
from latentcap.data.readers import read_examples
from latentcap.inference.precision import multiplies_bfloat16
from tests.helpers import tiny_captioner

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny work is slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_twin_has_as_many_parameters() -> None:
    sizes = bench_training.Sizes(batch=1, captions=1)
    counts = []
    ours, twin = bench_training.models(sizes, 224)
    tokens = torch.ones(1, 1, 3, dtype=torch.long)
    regions = torch.randn(1, 49, 1280)
    for model, logits in (
        (ours, lambda t, r: bench_training.our_logits(ours, t, ours.encode(regions=r))),
        (twin, twin),
    ):
        bench_training.training_step(model, logits, tokens, regions, torch.float32)()
        counts.append(bench_training.trained_parameters(model))
    assert counts[1] == pytest.approx(counts[0], rel=0.06)


def test_the_twin_learns_and_its_captions_share_an_image_only() -> None:
    _, twin = bench_training.models(bench_training.TINY, 64)
    tokens, regions = torch.randint(4, 50, (2, 2, 6)), torch.randn(2, 4, twin.regions.in_features)
    twin.eval()
    both, alone = twin(tokens, regions), twin(tokens[1:, 1:], regions[1:])
    assert both.shape == (2, 2, 6, 50)
    torch.testing.assert_close(both[1:, 1:], alone)
    changed = tokens.clone()
    changed[..., 3:] = 4
    torch.testing.assert_close(twin(changed, regions)[:, :, :3], both[:, :, :3])  # later words change nothing before
    step = bench_training.training_step(twin, twin, tokens, regions, torch.float32)
    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_contenders_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def contender(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    setting = Setting(2, CPU, quick=True, say=print)
    times = in_turns({name: contender(name) for name in "ab"}, setting, warmup=3)
    assert order[:6] == ["a"] * 3 + ["b"] * 3
    assert order[6:] == ["a", "b"] * 2
    assert [len(values) for values in times.values()] == [2, 2]


def test_ratios_are_paired_and_numbers_read_well() -> None:
    assert ratio([2.0, 40.0], [1.0, 10.0]) == Spread(3.0, 2.0, 4.0)
    assert [number(value) for value in (0.01234, 1.519, 47.12, 1234.5)] == ["0.0123", "1.52", "47.1", "1,234"]
    assert [shown(value) for value in (None, True, 1234, "x")] == ["—", "yes", "1,234", "x"]


def test_the_task_can_be_learned_from_its_regions() -> None:
    task = Task(vocab_size=50, cells=9, channels=32)
    tokens, regions = task.batch(5)
    assert tokens.shape == (5, 1, 13)
    assert regions.shape == (5, 9, 32)
    again, _ = Task(vocab_size=50, cells=9, channels=32).batch(5)
    assert torch.equal(tokens, again)


@pytest.mark.parametrize("name", ["training", "fusion", "heads", "precision"])
def test_quick_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, text = tmp_path / "out.json", tmp_path / "out.md"
    main([name, "--quick", "--repeats", "2", "--json", str(out), "--markdown", str(text)])
    report = json.loads(out.read_text(encoding="utf-8"))
    assert {"cpu", "threads", "torch", "gpu", "date"} <= set(report["machine"])
    for section in report[name]:
        assert section["rows"]
        assert len({tuple(row) for row in section["rows"]}) == 1
        assert section["title"] in text.read_text(encoding="utf-8")
    first = report[name][0]["rows"][0]["times faster"]
    assert 0 < first["low"] <= first["median"] <= first["high"]
    assert name in capsys.readouterr().err


def test_a_table_of_many_rows_is_read_and_measured(tmp_path: Path) -> None:
    table = write_table(tmp_path / "data", 1001)
    examples = read_examples(table)
    assert (len(examples), len(examples[0].captions)) == (1001, 2)
    assert all(Path(example.images[0].path).is_file() for example in examples)
    assert {"seconds", "peak"} <= measure_reading(table, tmp_path / "cache").keys()


@pytest.mark.slow
def test_quick_run_on_tables(tmp_path: Path) -> None:
    main(["data", "--quick", "--json", str(tmp_path / "out.json")])
    reading, starting = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["data"]
    assert [row["rows"] for row in reading["rows"]] == [row["rows"] for row in starting["rows"]]


def test_the_uncompressed_layer_is_attention_with_the_same_heads() -> None:
    """Against nn.MultiheadAttention with its weights, on regions alone; and causal on the words."""
    layer = FullAttention(32, 20, num_heads=4, head_dim=8)
    theirs = torch.nn.MultiheadAttention(32, 4, kdim=20, vdim=20, bias=False, batch_first=True)
    with torch.no_grad():
        keys, values = layer.down.weight.chunk(2)
        theirs.q_proj_weight.copy_(layer.query.weight)
        theirs.k_proj_weight.copy_(keys)
        theirs.v_proj_weight.copy_(values)
        theirs.out_proj.weight.copy_(torch.eye(32))
        state, regions = torch.randn(2, 1, 5, 32), torch.randn(2, 7, 20)
        found, _ = layer(state, layer.compress(regions, torch.zeros(7, 64)))
        expected = theirs(state[:, 0], regions, regions)[0]
        torch.testing.assert_close(found[:, 0].flatten(-2), expected, rtol=1e-4, atol=1e-5)
        words = torch.randn(2, 1, 5, 64)
        mask = torch.ones(5, 5, dtype=torch.bool).tril()
        before, _ = layer(state, torch.zeros(2, 0, 64), own=words, own_mask=mask)
        words[:, :, 3:] = 9
        after, _ = layer(state, torch.zeros(2, 0, 64), own=words, own_mask=mask)
        torch.testing.assert_close(before[:, :, :3], after[:, :, :3])


def test_bytes_cached_are_a_sixteenth_at_the_real_sizes() -> None:
    from latentcap.bench.fusion import Ours, Sizes, Standard

    sizes, regions = Sizes(), torch.randn(1, 2, 1280)
    ours, standard = Ours(sizes, with_context=False), Standard(sizes, with_context=False)
    assert 2 * standard.keys(regions).shape[-1] == 16 * ours.latents(regions).shape[-1]


@pytest.mark.slow
def test_captioning_against_tiny_rivals(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    out = tmp_path / "out.json"
    main(["captioning", "--quick", "--repeats", "1", "--model", str(tmp_path / "model"), "--json", str(out)])
    throughput, latency, start = json.loads(out.read_text(encoding="utf-8"))["captioning"]
    precisions = 2 if multiplies_bfloat16(torch.device("cpu")) else 1
    assert [row["model"] for row in throughput["rows"]] == ["ours", "BLIP-base", "ViT-GPT2", "GIT-base"] * precisions
    assert [row["search"] for row in latency["rows"]] == ["greedy", "beam 3"]
    assert start["rows"][0]["whole process s"]["median"] > 0


def test_images_come_from_folders_archives_or_are_drawn(tmp_path: Path) -> None:
    with pictures(None) as drawn:
        assert len(drawn) == 32
        assert drawn[0].open().size == (224, 224)
        archive = tmp_path / "some.tar"
        with tarfile.open(archive, "w") as file:
            for ref in drawn[:3]:
                file.add(ref.path, arcname=f"in/{Path(ref.path).name}")
        with pictures(archive) as packed, pictures(Path(drawn[0].path).parent) as folder:
            assert [ref.read_bytes() for ref in packed] == [ref.read_bytes() for ref in drawn[:3]]
            assert folder == drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["captioning", "--model", "nowhere"], "captioning needs a trained model: .*'nowhere'.*--model"),
        (["fusion", "--repeats", "0"], "--repeats 0"),
        (["fusion", "--threads", "0"], "--threads 0"),
        (["fusion", "--json", "no/such/folder.json"], "no/such does not exist"),
    ],
)
def test_mistakes_are_told_before_measuring(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_no_images_is_a_message(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="--images"), pictures(source):
            pass


@pytest.mark.slow
def test_batches_of_a_tiny_model(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    out = tmp_path / "out.json"
    main(["batch", "--quick", "--repeats", "1", "--model", str(tmp_path / "model"), "--json", str(out)])
    rates, beams, files = json.loads(out.read_text(encoding="utf-8"))["batch"]
    assert [row["what"] for row in rates["rows"]] == ["CNN alone", "greedy", "beam 3"]
    assert [row["beams"] for row in beams["rows"]] == [1, 3, 5, 10]
    assert [row["files"] for row in files["rows"]] == [80, 120]
    assert all(row["peak MB"] > 100 and row["resumed: peak MB"] > 100 for row in files["rows"])


def test_serving_under_load(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    out = tmp_path / "bench.json"
    tiny_captioner().save(tmp_path / "model")
    main(["serve", "--quick", "--model", str(tmp_path / "model"), "--json", str(out)])
    (section,) = json.loads(out.read_text(encoding="utf-8"))["serve"]
    assert [row["clients"] for row in section["rows"]] == [1, 8, 64]
    assert all(row["errors"] == 0 and row["requests"] == 16 for row in section["rows"])
    assert all(row["MB"] > 50 and row["of batch, by core ms"] > 0 for row in section["rows"])
    assert section["rows"][0]["p50 of in-process"] > 0


def test_live_captions_of_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    tiny_captioner().save(tmp_path / "model")
    out = tmp_path / "out.json"
    main(["video", "--quick", "--repeats", "1", "--model", str(tmp_path / "model"), "--json", str(out)])
    section, alone = json.loads(out.read_text(encoding="utf-8"))["video"]
    assert [(row["heads"], row["captions"]) for row in section["rows"]] == [("all", 2), ("1+1", 2)]
    assert all(row["frame to caption p50 ms"] >= row["computing p50 ms"] > 0 for row in section["rows"])
    assert [row["heads"] for row in alone["rows"]] == ["all", "1+1"]
    assert alone["rows"][1]["beside 1+1"]["median"] == 1
