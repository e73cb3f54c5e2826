"""`moda download` against a Hub on localhost: what it fetches, records and shows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from by_rule import key_table, state_by_rule
from download_bench import HTTPS, LANDMARKS, ONNX, PTH, SAFE, Bench, open_bench, pickled, same, sha
from moda_cli.errors import WeightsError
from moda_cli.weights.download import ensure
from moda_cli.weights.store import cache_dir, installed, read_lock, require


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with open_bench(tmp_path, monkeypatch) as bench:
        yield bench


def test_a_profile_is_fetched_checked_converted_and_recorded(bench: Bench) -> None:
    bench.weights(
        safe=[{"repo": "kijai/safe", "file": "net.safetensors", "sha256": sha(SAFE)}],
        pth=[{"repo": "kling/net", "file": "base/net.pth"}],
        landmarks=[{**LANDMARKS, "size": len(ONNX)}],
        nested=[{"url": f"{bench.hub.url}/files/net.pth", "sha256": sha(HTTPS)}],
    )
    done = bench.run("--json")
    assert done.exit_code == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["components"]}
    assert {row["status"] for row in rows.values()} == {"fetched"}
    paths = require("safe", "pth", "landmarks", "nested")
    assert all(same(paths[name]) for name in ("safe", "pth", "nested"))
    assert paths["landmarks"].read_bytes() == ONNX
    assert rows["pth"]["sha256"] == sha(PTH)
    assert rows["pth"]["revision"] == bench.hub.commit("kling/net")
    assert rows["pth"]["path_sha256"] == sha(paths["pth"].read_bytes())
    assert not bench.incomplete()

    requests = len(bench.hub.requests)
    again = bench.run("--json")
    assert {row["status"] for row in json.loads(again.stdout)["components"]} == {"present"}
    assert len(bench.hub.requests) == requests, "what is there needs no network"


def test_the_nested_stitching_file_is_flattened(bench: Bench) -> None:
    groups = {
        "shoulder": "stitching.json",
        "mouth": "retarget_lip.json",
        "eye": "retarget_eye.json",
    }
    states = {f"retarget_{g}": state_by_rule(key_table(table)) for g, table in groups.items()}
    nested = {g: {f"module.{k}": v for k, v in state.items()} for g, state in states.items()}
    bench.hub.repos["kling/net"]["s.pth"] = pickled({**nested, "optimizer": {"lr": torch.ones(9)}})
    bench.weights(s=[{"repo": "kling/net", "file": "s.pth", "groups": list(nested)}])
    assert bench.run().exit_code == 0
    loaded = load_file(require("s")["s"])
    wanted = {f"{g}.{k}": v for g, state in states.items() for k, v in state.items()}
    assert loaded.keys() == wanted.keys()
    assert all(loaded[name].equal(tensor) for name, tensor in wanted.items())


def test_a_path_that_is_not_established_is_found_by_listing_and_said(bench: Bench) -> None:
    bench.weights(net=[{"repo": "moda/moda", "find": ["gone.safetensors", "net-200.pth"]}])
    done = bench.run()
    assert done.exit_code == 0, done.stderr
    assert "found as moda/net-200.pth in moda/moda" in done.stderr
    assert read_lock()["net"].file == "moda/net-200.pth"

    bench.hub.repos["moda/moda"]["v2/net-200.pth"] = PTH
    bench.weights(other=[{"repo": "moda/moda", "find": ["net-200.pth"]}])
    done = bench.run()
    assert done.exit_code == 4
    assert "moda/net-200.pth, v2/net-200.pth" in done.stderr, "never guessed"


def test_the_first_source_that_verifies_is_used(bench: Bench) -> None:
    bench.weights(
        net=[
            {"repo": "kijai/safe", "file": "renamed.safetensors"},
            {"repo": "kijai/safe", "file": "net.safetensors", "sha256": sha(b"another")},
            {"repo": "kwai/net", "file": "base/net.pth", "sha256": sha(PTH)},  # redirects
        ]
    )
    done = bench.run()
    assert done.exit_code == 0, done.stderr
    assert "404" in done.stderr
    assert "its sha256 is" in done.stderr
    assert read_lock()["net"].source == "kwai/net@main/base/net.pth"
    assert same(require("net")["net"])


def test_without_a_network_the_cache_of_the_hub_is_enough(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.weights(net=[{"repo": "kling/net", "file": "base/net.pth"}], landmarks=[{**LANDMARKS}])
    assert bench.run().exit_code == 0
    monkeypatch.setenv("MODA_CACHE", str(bench.folder / "another"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert installed("net") is None
    requests = len(bench.hub.requests)
    done = bench.run()
    assert done.exit_code == 0, done.stderr
    assert len(bench.hub.requests) == requests
    assert same(require("net")["net"])
    assert read_lock()["net"].revision == bench.hub.commit("kling/net")


def test_two_at_once_fetch_a_file_once(bench: Bench) -> None:
    bench.weights(landmarks=[{**LANDMARKS}])
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(ensure, [["landmarks"], ["landmarks"]])
    assert first == second
    assert len(bench.hub.gets("landmark.onnx")) == 1


def test_a_sum_that_is_not_known_needs_trust(bench: Bench) -> None:
    bench.weights(
        odd=[{"url": f"{bench.hub.url}/files/net.pth"}],
        landmarks=[{**LANDMARKS}],
    )
    done = bench.run()
    assert done.exit_code == 0, "the others are fetched"
    assert "odd: not fetched" in done.stderr
    assert "--trust odd" in done.stderr
    assert not bench.hub.gets("net.pth")
    done = bench.run("--trust", "odd")
    assert done.exit_code == 0, done.stderr
    assert sha(HTTPS) in done.stderr
    assert read_lock()["odd"].sha256 == sha(HTTPS)
    assert same(require("odd")["odd"])


def test_verify_names_what_changed_and_it_is_not_loaded_again(bench: Bench) -> None:
    bench.weights(net=[{"repo": "kling/net", "file": "base/net.pth"}], landmarks=[{**LANDMARKS}])
    assert bench.run().exit_code == 0
    assert "2 of 2 installed" in bench.run("--verify").stdout
    path = require("landmarks")["landmarks"].resolve()
    path.write_bytes(ONNX[:-1] + b"!")
    done = bench.run("--verify")
    assert done.exit_code == 4
    assert "landmarks" in done.stderr
    assert "moda download landmarks" in done.stderr
    assert installed("landmarks") is None
    assert installed("net") is not None
    assert bench.run().exit_code == 0
    assert require("landmarks")["landmarks"].read_bytes() == ONNX


def test_commercial_use_leaves_out_what_forbids_it(bench: Bench) -> None:
    bench.weights(
        free=[{**LANDMARKS}],
        research=[{"repo": "kling/net", "file": "base/net.pth", "commercial": False}],
    )
    done = bench.run("--license", "commercial")
    assert done.exit_code == 0
    assert "left out, no commercial use: research" in done.stderr
    assert installed("free")
    assert installed("research") is None


def test_listing_and_dry_run_fetch_nothing(bench: Bench) -> None:
    bench.weights(
        landmarks=[{**LANDMARKS, "size": len(ONNX)}], odd=[{"url": "https://a.org/a.pth"}]
    )
    rows = json.loads(bench.run("--list", "--json").stdout)["components"]
    assert [(row["name"], row["size"], row["installed"]) for row in rows] == [
        ("landmarks", len(ONNX), None),
        ("odd", None, None),
    ]
    dry = bench.run("--dry-run").stdout
    assert "kling/net@main/landmark.onnx" in dry
    assert "1.0 MB" in dry
    assert "only with --trust odd" in dry
    assert "to be fetched: at least 1.0 MB" in dry
    listed = bench.run("--list").stdout
    assert "0 of 2 there: 0.0 MB of at least 1.0 MB" in listed
    assert f"converted: {cache_dir()}" in listed
    assert "downloads: " in listed
    assert not bench.hub.requests
    assert not cache_dir().exists()
    assert bench.run("--list", "--verify").exit_code == 2
    assert bench.run("nonsense").exit_code == 2


def test_what_is_missing_names_the_command(bench: Bench) -> None:
    bench.weights(a=[{**LANDMARKS}], b=[{"profiles": ["eval"], "url": "https://a.org/b.pth"}])
    with pytest.raises(WeightsError, match="missing: a") as caught:
        require("a")
    assert "`moda download moda`" in caught.value.hint
    with pytest.raises(WeightsError) as caught:
        require("b")
    assert "`moda download eval --trust b`" in caught.value.hint


def test_the_installed_command(bench: Bench) -> None:
    """The whole of it as a user runs it; a limit on file size is a full disk of another kind."""
    bench.weights(net=[{"repo": "kling/net", "file": "base/net.pth"}], landmarks=[{**LANDMARKS}])
    environment = {**os.environ, "HF_HOME": str(bench.folder / "home"), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "moda_cli", "download"]
    limited = ["sh", "-c", f"ulimit -f 500; exec {' '.join(command)} landmarks"]
    full = subprocess.run(limited, env=environment, capture_output=True, text=True)
    assert full.returncode == 4, full.stderr
    assert "no space left" in full.stderr
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\033" not in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["net", "landmarks"]
    assert (bench.folder / "home" / "hub").is_dir()
    assert same(require("net")["net"])
