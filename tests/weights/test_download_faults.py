"""`moda download` when something is wrong: one clear message, and nothing that later loads."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from download_bench import HTTPS, LANDMARKS, ONNX, STATE, Bench, open_bench, pickled, sha
from moda_cli.errors import WeightsError
from moda_cli.weights import transfer
from moda_cli.weights.download import ensure
from moda_cli.weights.store import installed, require


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with open_bench(tmp_path, monkeypatch) as bench:
        yield bench


def test_a_cut_connection_is_resumed_at_once_and_by_the_next_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.weights(landmarks=[{**LANDMARKS}])
    bench.hub.cut_after["landmark.onnx"] = 300_000
    assert bench.run().exit_code == 0
    starts = [request.range for request in bench.hub.gets("landmark.onnx")]
    assert starts == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]

    bench.weights(other=[{"convert": False, "repo": "kling/net", "file": "late.onnx"}])
    bench.hub.repos["kling/net"]["late.onnx"] = ONNX[::-1]
    bench.hub.cut_after["late.onnx"] = 400_000
    bench.hub.requests.clear()
    bench.hub.cuts_left = 1
    with monkeypatch.context() as impatient:
        impatient.setattr(transfer, "RETRY_WAITS_S", ())
        done = bench.run()
    assert done.exit_code == 4
    assert "broke off after 400000 of 1024000 bytes" in done.stderr
    assert "run the same command again" in done.stderr
    assert installed("other") is None
    assert bench.run().exit_code == 0
    assert [r.range for r in bench.hub.gets("late.onnx")] == [None, "bytes=400000-"]
    assert require("other")["other"].read_bytes() == ONNX[::-1]


def test_wrong_bytes_are_refused_and_nothing_of_them_stays(bench: Bench) -> None:
    bench.weights(
        landmarks=[{**LANDMARKS}],
        nested=[{"url": f"{bench.hub.url}/files/net.pth", "sha256": sha(HTTPS)}],
    )
    bench.hub.wrong = {"landmark.onnx": ONNX[:-1] + b"!", "net.pth": HTTPS[:-1] + b"!"}
    done = bench.run()
    assert done.exit_code == 4
    assert "Traceback" not in done.stderr
    assert done.stderr.count("is refused: its sha256 is") == 2
    assert installed("landmarks") is installed("nested") is None
    kept = [
        path for path in bench.folder.rglob("*") if path.is_file() and path.stat().st_size > 999
    ]
    assert not kept

    bench.hub.wrong = {}
    assert bench.run().exit_code == 0, "the same command mends it"


def test_a_login_page_is_told_as_one_and_costs_nothing_that_was_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RETRY_WAITS_S", ())
    bench.weights(landmarks=[{**LANDMARKS}])
    bench.hub.cut_after["landmark.onnx"] = 300_000
    bench.hub.cuts_left = 1
    assert bench.run().exit_code == 4
    bench.hub.page = {"landmark.onnx"}
    done = bench.run()
    assert done.exit_code == 4
    assert "answers with a web page (text/html) in place of" in done.stderr
    assert "open the address in a browser" in done.stderr
    bench.hub.page = set()
    assert bench.run().exit_code == 0
    assert bench.hub.gets("landmark.onnx")[-1].range == "bytes=300000-"
    assert require("landmarks")["landmarks"].read_bytes() == ONNX


def test_an_answer_of_another_length_is_refused_before_its_first_byte(bench: Bench) -> None:
    url = f"{bench.hub.url}/files/net.pth"
    bench.weights(net=[{"url": url, "sha256": sha(HTTPS), "size": len(HTTPS)}])
    bench.hub.wrong = {"net.pth": HTTPS[:-9]}
    done = bench.run()
    assert done.exit_code == 4
    assert f"its size is {len(HTTPS) - 9}, not {len(HTTPS)}" in done.stderr
    assert not [path for path in bench.folder.rglob("*.part") if path.is_file()]


def test_a_busy_server_is_given_the_time_it_asks_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RETRY_WAITS_S", (0.0, 0.0))
    bench.weights(landmarks=[{**LANDMARKS}])
    soon = datetime.now(UTC) + timedelta(seconds=3)
    bench.hub.busy = {"landmark.onnx": ["1", format_datetime(soon, usegmt=True)]}
    started = time.monotonic()
    assert bench.run().exit_code == 0
    assert time.monotonic() - started > 1.9, "a second, and until that date (which has no parts)"

    bench.weights(late=[{"convert": False, "repo": "kling/net", "file": "late.onnx"}])
    bench.hub.repos["kling/net"]["late.onnx"] = ONNX[::-1]
    bench.hub.busy = {"late.onnx": ["3600"]}
    started = time.monotonic()
    done = bench.run()
    assert time.monotonic() - started < 10
    assert done.exit_code == 4
    assert "answers 429 after 0 of 1024000 bytes" in done.stderr
    assert "in 3600 s" in done.stderr


def test_a_dead_proxy_is_named_without_its_password(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.weights(landmarks=[{**LANDMARKS}])
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    done = bench.run()
    assert done.exit_code == 4
    assert (
        "http://hub.example cannot be reached through the proxy http://127.0.0.1:1" in done.stderr
    )
    assert "unset HTTP_PROXY" in done.stderr
    assert "secret" not in done.stderr


class Evil:
    """What a malicious checkpoint looks like: opening it runs a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.filterwarnings("ignore")  # torch remarks on each of these
@pytest.mark.parametrize("kind", ["zip", "bare", "torchscript"])
def test_a_malicious_pickle_is_refused_and_does_not_run(bench: Bench, kind: str) -> None:
    trace = bench.folder / "ran"
    checkpoint = {**STATE, "extra": Evil(trace)}
    if kind == "zip":
        data = pickled(checkpoint)
    elif kind == "bare":
        data = pickle.dumps(checkpoint)
    else:
        buffer = BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
        data = buffer.getvalue()
    bench.hub.repos["kling/net"]["base/net.pth"] = data
    bench.weights(net=[{"repo": "kling/net", "file": "base/net.pth"}])
    done = bench.run()
    assert done.exit_code == 4
    assert "is refused: it is not a plain file of tensors" in done.stderr
    assert installed("net") is None
    assert not trace.exists()
    if kind != "torchscript":  # the file is what it is meant to be: opened carelessly, it runs
        load = torch.load if kind == "zip" else lambda f, weights_only: pickle.load(f)
        load(BytesIO(data), weights_only=False)
        assert trace.exists()


def test_who_may_not_read_it_is_told_about_the_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hub.token = "hf_secret"
    bench.weights(landmarks=[{**LANDMARKS}])
    done = bench.run()
    assert done.exit_code == 4
    assert "401" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert f"{bench.hub.url}/kling/net" in done.stderr

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = bench.run()
    assert done.exit_code == 0, done.stderr
    assert "hf_secret" not in done.output + done.stderr
    assert not any(request.authorized for request in bench.hub.gets("landmark.onnx")), (
        "the token is not shown to the host that the Hub sends us to"
    )


def test_gated_and_missing_files_are_named(bench: Bench) -> None:
    bench.weights(
        gated=[{**LANDMARKS}],
        gone=[{"repo": "kling/net", "file": "gone.pth"}],
        nowhere=[{"url": f"{bench.hub.url}/files/no.pth", "sha256": sha(b"")}],
    )
    bench.hub.status["landmark.onnx"] = 403
    done = bench.run()
    assert done.exit_code == 4
    assert "gated: kling/net@main/landmark.onnx is not for everyone (403)" in done.stderr
    assert "gone: kling/net@main/gone.pth is not there (404)" in done.stderr
    assert f"see {bench.hub.url}/kling/net" in done.stderr
    assert "/files/no.pth is not there (404)" in done.stderr


def test_offline_is_known_within_seconds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.weights(
        net=[{"repo": "kling/net", "file": "base/net.pth"}, {"repo": "kijai/safe", "file": "x"}],
        landmarks=[{**LANDMARKS}],
    )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"http://127.0.0.1:1 cannot be reached") as caught:
        ensure(["net", "landmarks"])
    assert time.monotonic() - started < 20
    assert "`moda download moda`" in caught.value.hint
    assert str(caught.value).count("cannot be reached") == 1, "one cause, said once"

    monkeypatch.setenv("HF_ENDPOINT", bench.hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    requests = len(bench.hub.requests)
    done = bench.run()
    assert done.exit_code == 4
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert len(bench.hub.requests) == requests

    monkeypatch.delenv("HF_HUB_OFFLINE")
    seen: list[tuple[str, int, int | None]] = []
    paths = ensure(["net", "landmarks"], lambda *progress: seen.append(progress))
    assert paths["landmarks"].read_bytes() == ONNX
    assert max(done for name, done, _ in seen if name == "landmarks") == len(ONNX)


def test_a_damaged_cache_of_the_hub_is_mended(bench: Bench) -> None:
    bench.weights(landmarks=[{**LANDMARKS}])
    assert bench.run().exit_code == 0
    require("landmarks")["landmarks"].resolve().write_bytes(b"short")
    assert installed("landmarks") is None
    done = bench.run()
    assert done.exit_code == 0, done.stderr
    assert "damaged; fetching it again" in done.stderr
    assert require("landmarks")["landmarks"].read_bytes() == ONNX


def test_a_host_that_swallows_everything_counts_as_offline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.weights(landmarks=[{**LANDMARKS}])
    with socket.socket() as deaf:  # accepts, never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setattr(transfer, "PROBE_TIMEOUT_S", 0.3)
        with pytest.raises(WeightsError, match="cannot be reached"):
            ensure(["landmarks"])


def test_a_full_disk_is_one_clear_message(
    bench: Bench, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = {"a.weight": torch.zeros(200_000)}
    bench.hub.files["big.pth"] = pickled(big)
    bench.weights(
        big=[{"url": f"{bench.hub.url}/files/big.pth", "sha256": sha(bench.hub.files["big.pth"])}],
    )
    monkeypatch.setenv("MODA_CACHE", str(tiny_disk / "cache"))
    done = bench.run()  # its size is not known: the disk runs full while it comes
    assert done.exit_code == 4
    assert done.stderr.count("no space left in") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert installed("big") is None

    bench.weights(net=[{"repo": "kling/net", "file": "base/net.pth"}])
    bench.hub.repos["kling/net"]["base/net.pth"] = pickled(big)  # fits the other disk, then
    done = bench.run()  # its conversion does not fit this one
    assert done.exit_code == 4
    assert done.stderr.count("no space left in") == 1, done.stderr
    assert installed("net") is None

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tiny_disk / "hub"))
    bench.hub.repos["kling/net"]["base/net.pth"] = pickled({"a.weight": torch.ones(200_000)})
    done = bench.run()  # its size is known, so nothing is begun
    assert done.exit_code == 4
    assert "bytes to fetch" in done.stderr


def test_interrupting_stops_at_once_and_the_next_run_goes_on(bench: Bench) -> None:
    bench.weights(landmarks=[{**LANDMARKS}])
    bench.hub.slow = {"landmark.onnx"}  # 10 s of it
    command = [sys.executable, "-m", "moda_cli", "download"]
    environment = {**os.environ, "HF_HOME": str(bench.folder / "home")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    parts: list[Path] = []
    while not parts or not parts[0].stat().st_size:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
        parts = bench.incomplete()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=8)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "what is done is kept; the same command goes on" in said
    have = parts[0].stat().st_size
    assert have < len(ONNX)
    bench.hub.slow = set()
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert bench.hub.gets("landmark.onnx")[-1].range == f"bytes={have}-"
