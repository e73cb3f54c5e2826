"""`moda train --push` against a Hub that runs here."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moda_cli.cli import app
from moda_cli.train.loop import train
from moda_cli.train.push import model_card
from toy_features import short, write_features

ASKED: list[tuple[str, bytes]] = []


class Hub(BaseHTTPRequestHandler):
    """The four requests of an upload, every file small enough to go inside the commit."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        ASKED.append((self.path, body))
        answers: dict[str, Any] = {
            "/api/repos/create": {"url": f"http://{self.headers['Host']}/someone/model"},
            "/api/validate-yaml": {"errors": [], "warnings": []},
        }
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                                for f in files]}  # fmt: skip
        elif "/commit/" in self.path:
            answer = {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": f"http://{self.headers['Host']}/someone/model/commit/0",
            }
        else:
            answer = answers[self.path]
        refused = self.headers.get("Authorization") != "Bearer hf_right"
        content = json.dumps({"error": "no"} if refused else answer).encode()
        self.send_response(401 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.slow
def test_a_run_is_uploaded_with_its_card(tmp_path: Path, endpoint: str) -> None:
    features, run = write_features(tmp_path / "features"), tmp_path / "run"
    config = short(steps=2)
    train(features, run, config, workers=0)
    command = [sys.executable, "-m", "moda_cli", "train", str(features), "-o", str(run)]
    command += ["--config", str(run / "train.json"), "--push", "someone/model"]
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}

    def push(token: str) -> "subprocess.CompletedProcess[str]":
        env = {**environment, "HF_TOKEN": token}
        return subprocess.run(command, capture_output=True, text=True, env=env)

    refused = push("hf_wrong")
    assert refused.returncode == 1
    assert f"\nerror: cannot upload {run} to someone/model: " in refused.stderr
    assert "hint: the run is complete" in refused.stderr
    done = push("hf_right")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{endpoint}/someone/model"
    commit = next(body for path, body in ASKED if "/commit/" in path)
    entries = [json.loads(line) for line in commit.splitlines()]
    sent = {entry["value"]["path"] for entry in entries if entry["key"] == "file"}
    assert sent == {
        "model.safetensors", "config.json", "stats.json", "train.json", "log.jsonl", "README.md"
    }  # fmt: skip
    card = model_card(run, "someone/model")
    assert (run / "README.md").read_text() == card
    assert "moda generate PORTRAIT AUDIO --model model" in card
    assert "| val_loss |" in card


@pytest.mark.parametrize("name", ["model", "a/b/c", "a b/c", "/c"])
def test_a_name_without_an_owner_is_refused(tmp_path: Path, name: str) -> None:
    arguments = ["train", str(tmp_path), "-o", str(tmp_path / "run"), "--push", name]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "owner/name" in done.output
