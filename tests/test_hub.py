"""Model folders from and to a server that speaks the hub's HTTP API, with the hub's own client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.hub import is_repository, push
from latentcap.training.card_data import front_matter
from tests.helpers import tiny_captioner

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as fetching and uploading a model folder ask for. ``repositories``: name to files."""

    repositories: dict[str, dict[str, bytes]]
    asked: list[str]

    def log_message(self, *given: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: object, status: int = 200, **headers: str) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        self.asked.append(path)
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            files = self.repositories.get("/".join(parts[2:4]))
            if files is None:
                return self.answer_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            if len(parts) > 5 and parts[5] not in ("main", COMMIT):
                return self.answer_json({"error": "Invalid rev"}, 404, X_Error_Code="RevisionNotFound")
            if "tree" in parts:
                return self.answer_json(
                    [{"type": "file", "path": name, "size": len(data), "oid": COMMIT} for name, data in files.items()]
                )
            siblings = [{"rfilename": name} for name in files]
            return self.answer_json({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": siblings, "tags": []})
        data = self.repositories.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if data is None:
            return self.answer_json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        return self.answer(200, data, ETag=etag, X_Repo_Commit=COMMIT, Content_Type="application/octet-stream")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0].strip("/")
        self.asked.append(path)
        if path == "api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'user'}/{given['name']}"
            self.repositories.setdefault(name, {})
            return self.answer_json({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})
        if path == "api/validate-yaml":
            return self.answer_json({"errors": [], "warnings": []})
        name = "/".join(path.split("/")[2:4])
        if "preupload" in path:
            files = [{"path": entry["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for entry in json.loads(body)["files"]]  # fmt: skip
            return self.answer_json({"files": files})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.repositories[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        return self.answer_json({"success": True, "commitOid": COMMIT, "commitUrl": url, "pullRequestUrl": None})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    tiny_captioner().save(folder, card="# A tiny model\n")
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[ThreadingHTTPServer]:
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    lacking = {name: data for name, data in files.items() if name != "config.json"}

    class Here(Hub):
        repositories = {  # noqa: RUF012
            "user/tiny": files | {"pytorch_model.bin": b"a pickle", "modeling.py": b"raise SystemExit"},
            "user/bare": lacking,
        }
        asked: list[str] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(hub: ThreadingHTTPServer, home: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HF_TOKEN": "hf_x",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **more,
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None) if "HF_HUB_OFFLINE" not in more else None
    return subprocess.run(
        [sys.executable, "-m", "latentcap.cli.main", *command], cwd=home, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_model_is_fetched_pushed_and_found_again_offline(
    hub: ThreadingHTTPServer, model: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    caption = ("caption", "red.png", "--model", "user/tiny", "--overwrite", "--output")
    done = run(hub, tmp_path, *caption, "a.jsonl")
    assert done.returncode == 0, done.stderr
    found = hub.RequestHandlerClass.asked  # type: ignore[attr-defined]
    assert not any(name.endswith((".bin", ".py")) for name in found)
    done = run(hub, tmp_path, *caption, "b.jsonl", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    (model / "notes.txt").write_text("mine")
    done = run(hub, tmp_path, "push", str(model), "me/mine")
    assert done.returncode == 0, done.stderr
    assert f"/me/mine/commit/{COMMIT}" in done.stdout
    pushed = hub.RequestHandlerClass.repositories["me/mine"]  # type: ignore[attr-defined]
    assert set(pushed) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert pushed["config.json"] == (model / "config.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("user/none", {}, "there is no repository of that name"),
        ("user/bare", {}, "it lacks config.json"),
        ("user/tiny", {"HF_HUB_OFFLINE": "1"}, "was not fetched before"),
        ("user/tiny", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be reached"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    hub: ThreadingHTTPServer, tmp_path: Path, name: str, more: dict[str, str], told: str
) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    done = run(hub, tmp_path, "caption", "red.png", "--model", name, "--output", "a.jsonl", **more)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_taken_for_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs", "mine").mkdir(parents=True)
    assert is_repository("user/name-1.0")
    for name in ("runs/mine", "rsicd", "/user/name", "a/b/c", "../x", "user/", Path("user/name")):
        assert not is_repository(name)


def test_only_model_folders_are_pushed(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UserError, match=r"lacks config\.json, model\.safetensors"):
        push(tmp_path, "user/name")
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not latentcap's"):
        push(tmp_path, "user/name")
    with pytest.raises(UserError, match="give user/name"):
        push(model, "name")


def test_the_front_matter_is_the_hubs() -> None:
    scores = {"val/loss": 2.5, "val/BLEU-4": 0.21, "val/CIDEr-D": 0.61, "val/distinct": 700.0}
    card = ModelCard(front_matter(backbone="tf_efficientnet_lite2", datasets=["train.tar"], scores=scores) + "# x\n")
    assert card.data.library_name == "latentcap"
    assert card.data.pipeline_tag == "image-to-text"
    assert card.data.base_model == "timm/tf_efficientnet_lite2"
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"bleu-4": 0.21, "cider-d": 0.61}
    bare = ModelCard(front_matter(backbone="resnet50", datasets=[], scores={}) + "# x\n")
    assert not bare.data.eval_results
