"""The sweep: its grid, its record and resumption, and the W&B file. A stand-in trains, in a process of its own."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
import yaml

from latentcap.cli.heads import main as heads
from latentcap.cli.heads import sweep
from latentcap.cli.heads.sweep import main
from latentcap.cli.train import main as train
from latentcap.config import DecoderConfig, FusionConfig, ModelConfig
from latentcap.data.errors import UserError
from latentcap.heads.sweep_grid import STUDIES, Variant, embed_dim, study, variants

TRAINER = """
import json, pathlib, sys
settings = dict(part[2:].split("=", 1) for part in sys.argv[1:] if part.startswith("--") and "=" in part)
folder = pathlib.Path(settings["trainer.default_root_dir"])
with open(folder.parent.parent / "calls.jsonl", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if settings.get("fail") == folder.parent.name:
    sys.exit("error: it broke")
(folder / "model").mkdir(exist_ok=True)
score = 1 + float(settings["model.model.fusion.latent_dropout"]) + int(settings["seed_everything"]) / 100
(folder / "model" / "scores.json").write_text(json.dumps({"val/CIDEr-D": score, "val/BLEU-4": 0.5, "val/ROUGE-L": 0.6}))
"""


@pytest.fixture(autouse=True)
def _trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER, encoding="utf-8")
    monkeypatch.setattr(sweep, "TRAIN", (sys.executable, str(script)))


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("size", [256, 512])
def test_every_variant_is_a_model(size: int) -> None:
    chosen = variants(STUDIES)
    assert len(chosen) == len({variant.folder for variant in chosen}) == len({variant.name for variant in chosen})
    for variant in chosen:
        fusion = FusionConfig(**variant.overrides(size))
        config = ModelConfig(fusion=fusion, decoder=DecoderConfig(embed_dim=size))
        assert config.latent_dim % 4 == 0
    assert Variant().overrides(512)["latent_dim"] == 64
    assert all(Variant() in study(name) for name in STUDIES)  # each study compares with the default


def test_a_sweep_runs_writes_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["--output", str(out), "--studies", "dropout", "--seeds", "2", "--jobs", "2"]
    recipe = ["--", "--data.train", "here"]
    assert heads(["sweep", *command, "--list", *recipe]) == 0
    assert "8 trials, 8 to do" in capsys.readouterr().out
    assert not out.exists()
    assert main(["--output", str(out), "--studies", "dropout", "--seeds", "1", *recipe]) == 0
    assert len(calls(out)) == 4
    assert heads(["sweep", *command, *recipe]) == 0  # two at once, and only the second seed
    assert len(calls(out)) == 8
    assert {"fit", "--data.train", "here"} <= set(calls(out)[0])
    table = (out / "results.md").read_text(encoding="utf-8")
    assert "| 0.1 | 1.105 ± 0.007 | 0.500 ± 0.000 |" in table
    assert "**1.305 ± 0.007**" in table
    assert "<svg" in (out / "results.svg").read_text(encoding="utf-8")
    assert len((out / "results.csv").read_text(encoding="utf-8").splitlines()) == 9
    assert main([*command, *recipe]) == 0
    assert len(calls(out)) == 8  # nothing is trained twice
    capsys.readouterr()
    assert main([*command, "--list", *recipe]) == 0
    shown = capsys.readouterr().out
    assert "8 trials, 0 to do" in shown
    assert "CIDEr-D 1.300" in shown
    with pytest.raises(UserError, match="another training"):
        main([*command, "--", "--data.train", "elsewhere"])


def test_what_failed_is_said_and_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, bad = tmp_path / "out", Variant(dropout=0.2).folder
    command = ["--output", str(out), "--studies", "dropout", "--seeds", "1", "--", f"--fail={bad}"]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "dropout 0.2, seed 0: it broke" in captured.err
    assert "| 0.3 |" in captured.out
    (out / bad / "seed0" / "checkpoints").mkdir()
    (out / bad / "seed0" / "checkpoints" / "last.ckpt").touch()
    assert main(command) == 1
    again = calls(out)[-1]
    assert len(calls(out)) == 5
    assert again[-2:] == ["--ckpt_path", "last"]


def test_a_first_training_that_fails_stops_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it broke"):
        main(["--output", str(tmp_path / "out"), "--studies", "dropout", "--", f"--fail={Variant(dropout=0.0).folder}"])
    assert len(calls(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--", "x"], None), (["--output", "o"], "after --"), (["--output", "o", "--seeds", "0", "--", "x"], "--seeds 0")],
)
def test_mistakes(arguments: list[str], message: str | None) -> None:
    with pytest.raises(UserError if message else SystemExit, match=message):
        main(arguments)


def test_the_embedding_size_is_that_of_the_training(tmp_path: Path) -> None:
    assert embed_dim(["--config", "configs/scenes.yaml"]) == 256
    assert embed_dim(["--config=configs/scenes.yaml", "--model.model.decoder.embed_dim", "128"]) == 128
    assert embed_dim(["--data.train", "x"]) == 512 == DecoderConfig().embed_dim
    with pytest.raises(UserError, match="does not exist"):
        embed_dim(["--config", str(tmp_path / "none.yaml")])


def test_the_command_line_accepts_what_the_wandb_sweep_gives(capsys: pytest.CaptureFixture[str]) -> None:
    """The file's own command with the first value of each parameter, as the agent calls it."""
    sweep = yaml.safe_load(Path("configs/sweeps/heads.yaml").read_text(encoding="utf-8"))
    fixed = [part for part in sweep["command"] if part.startswith("--")]
    chosen = {name: entry.get("values", [entry.get("value")])[0] for name, entry in sweep["parameters"].items()}
    with pytest.raises(SystemExit) as stopped:
        train(["fit", *fixed, *(f"--{name}={value}" for name, value in chosen.items()), "--print_config"])
    assert not stopped.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed.pop("seed_everything") == chosen.pop("seed_everything")
    for name, value in chosen.items():
        found = printed
        for part in name.split("."):
            found = found[part]
        assert found == value


def test_the_wandb_sweep_names_settings_that_exist_and_fit() -> None:
    sweep = yaml.safe_load(Path("configs/sweeps/heads.yaml").read_text(encoding="utf-8"))
    assert sweep["program"] == "latentcap"
    assert sweep["command"][1:4] == ["${program}", "train", "fit"]
    assert sweep["metric"] == {"name": "val/CIDEr-D", "goal": "maximize"}
    parameters = dict(sweep["parameters"])
    assert len(parameters.pop("seed_everything")["values"]) >= 3
    names = [name.removeprefix("model.model.fusion.") for name in parameters]
    values = [entry.get("values", [entry.get("value")]) for entry in parameters.values()]
    totals = set()
    for combination in itertools.product(*values):
        config = ModelConfig(fusion=FusionConfig(**dict(zip(names, combination, strict=True))))
        totals.add(config.num_heads)
    assert {1, 12} <= totals
