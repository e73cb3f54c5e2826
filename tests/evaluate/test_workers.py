"""`moda eval` in several processes and on a cluster: the same results as in one."""

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from typer.testing import CliRunner, Result

from eval_bench import install, tiny_weights, write_clip
from moda_cli.cli import app
from moda_cli.evaluate import catalogue, session
from moda_cli.jobs import processes
from moda_cli.media import read_audio, read_image, write_image
from moda_cli.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_weights(tmp_path_factory.mktemp("eval_weights"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Path]) -> Path:
    """Four clips with their real ones, of which two cannot be measured."""
    install(monkeypatch, tmp_path / "moda", weights)
    for seed, name in enumerate(("a", "b", "dark", "broken")):
        dark = range(20) if name == "dark" else ()
        write_clip(tmp_path / "made" / f"{name}.mp4", seed=seed, dark=dark)
        write_clip(tmp_path / "real" / f"{name}.mp4", seed=seed + 10)
    (tmp_path / "made" / "broken.mp4").write_bytes(b"not a video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, *arguments: str) -> tuple[Result, dict[str, Any]]:
    """The results, without the one path that differs from folder to folder."""
    command = ["eval", "made", "--reference", "real", "-o", name]
    command += ["--metrics", "fvd,fsim,face", "--bootstrap-distances", "5", "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, *arguments])
    assert done.exit_code == 1, done.output  # two clips are left out
    data: dict[str, Any] = json.loads(Path(name, "results.json").read_text())
    for clip in data["clips"]:
        assert Path(clip.pop("reference_prepared")).is_relative_to(name)
    return done, data


def forbid_looks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes load this module anew, so they may look at faces."""

    def load(*arguments: Any) -> catalogue.Measure:
        raise AssertionError("the driver looks itself")

    monkeypatch.setattr(catalogue, "load_fsim", load)


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("the driver makes a clip itself")


@pytest.mark.slow
@pytest.mark.usefixtures("many_threads")
def test_any_number_of_workers_gives_the_same_results(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, one = run("one")
    forbid_looks_here(monkeypatch)
    _, two = run("two", "--workers", "2")
    assert two == one
    reasons = {(row["id"], row["metric"]) for row in one["left_out"]}
    assert {("broken", None), ("dark", "fsim")} <= reasons
    caches = ({path.name for path in (bench / n / "cache").rglob("*.*")} for n in ("one", "two"))
    assert len({frozenset(names) for names in caches}) == 1

    def start(*arguments: Any) -> processes.Worker:
        raise AssertionError("there is nothing left to look at")

    monkeypatch.setattr(processes, "Worker", start)
    _, again = run("two", "--workers", "2")
    assert again == one


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # one cluster at a time
@pytest.mark.usefixtures("many_threads")
def test_a_cluster_gives_the_same_results(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_bench import two_nodes

    _, one = run("one", "--metrics", "fsim")
    forbid_looks_here(monkeypatch)
    for name in ("first", "second"):
        case = bench / "cases" / name
        case.mkdir(parents=True)
        write_image(case / "image.png", read_image(EXAMPLES / "portrait.png")[::2, ::2])
        speech = read_audio(EXAMPLES / "speech.wav")[16_000:17_600]
        soundfile.write(case / "audio.wav", speech, 16_000)
    command = ["eval", "said", "--reference", "cases", "--split", "wild", "--generate", "--json"]
    command += ["--model", "mini", "--metrics", "face", "--device", "cpu", "--ray"]
    with two_nodes() as (cluster, _):
        _, ray = run("ray", "--metrics", "fsim", "--ray", cluster.address)
        monkeypatch.setattr(Pipeline, "load", forbidden)
        done = CliRunner().invoke(app, [*command, cluster.address])
    assert ray == one
    made = json.loads(done.stdout)
    assert {clip["id"] for clip in made["clips"]} == {"first", "second"}
    assert made["summary"]["generated"]["rtf"]["value"] > 0
    assert any("timed on a Ray cluster" in note for note in made["notes"])
    assert {path.name for path in Path("said").glob("*.mp4")} == {"first.mp4", "second.mp4"}


def test_a_clip_that_crashes_is_left_out_and_the_others_are_measured(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = {"b": "its process was ended by SIGSEGV, 2 times"}
    monkeypatch.setattr(session, "fill_cache", lambda *arguments: (crash, ["cpu"]))
    done, data = run("one", "--workers", "2")
    assert "left out: b (generated): its process was ended by SIGSEGV" in done.stderr
    assert [clip["id"] for clip in data["clips"]] == ["a", "dark"]


def test_a_cluster_that_does_not_answer(bench: Path) -> None:
    command = ["eval", "made", "--metrics", "face", "--ray", "127.0.0.1:9"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "no Ray cluster at 127.0.0.1:9" in done.stderr
    both = CliRunner().invoke(app, [*command, "--workers", "2"])
    assert both.exit_code == 2
    assert "--workers is for this machine" in both.stderr
