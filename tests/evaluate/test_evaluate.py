"""`moda eval`: what it compares, reports, leaves out and remembers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from eval_bench import install, tiny_weights, violations, write_clip
from moda_cli.cli import app
from moda_cli.config import ClipConfig
from moda_cli.errors import InputError
from moda_cli.evaluate import catalogue
from moda_cli.evaluate.cache import Cache
from moda_cli.evaluate.prepared import WHOLE, open_reference
from moda_cli.evaluate.protocol import Protocol
from moda_cli.evaluate.results import few_frames
from moda_cli.media import read_audio, read_video, write_video
from moda_cli.media.provenance import read_record
from moda_cli.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
EXAMPLES = Path(__file__).parents[2] / "examples"
SCHEMA = json.loads(
    (Path(catalogue.__file__).parents[1] / "assets/results.schema.json").read_text()
)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_weights(tmp_path_factory.mktemp("eval_weights"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Path]) -> Path:
    """A folder with the tiny weights installed beside it."""
    install(monkeypatch, tmp_path / "moda", weights)
    return tmp_path


def run(*arguments: str | Path, encode: bool = False) -> Result:
    """Of the metrics that the tiny weights serve, unless others are named."""
    command = ["eval", *map(str, arguments), "--bootstrap-distances", "5"]
    if "--metrics" not in command:
        command += ["--metrics", "fvd,fsim"]
    return CliRunner().invoke(app, command if encode else [*command, "--no-encode-reference"])


def results(done: Result) -> dict[str, Any]:
    assert done.exit_code in (0, 1), done.stderr
    if done.exit_code == 1 and not isinstance(done.exception, SystemExit):
        raise done.exception or AssertionError(done.output)
    data: dict[str, Any] = json.loads(done.stdout)
    assert violations(data, SCHEMA, SCHEMA) == []
    return data


def test_a_real_clip_that_is_encoded_again_is_not_said_to_be_generated(tmp_path: Path) -> None:
    write_clip(tmp_path / "real.mp4", frames=6)
    cache = Cache(tmp_path / "cache")
    clip = open_reference(tmp_path / "real.mp4", WHOLE, Protocol(), cache)
    assert clip.path.is_relative_to(cache.folder)
    assert read_record(clip.path) == {}


def test_two_folders_are_matched_by_name(bench: Path) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        write_clip(bench / "made" / f"{name}.mp4", frames=34, seed=seed)
        write_clip(bench / "real" / f"{name}.mov", frames=40, seed=seed + 10)
    write_clip(bench / "real" / "unused.mp4")
    data = results(run(bench / "made", "--reference", bench / "real", "--json"))
    assert [(clip["id"], clip["frames"]) for clip in data["clips"]] == [
        ("a", 34), ("b", 34), ("c", 34),
    ]  # fmt: skip
    assert data["unused_references"] == 1
    summary = data["summary"]["generated"]
    assert summary["fvd"]["value"] > 0
    assert (summary["fvd"]["clips"], summary["fvd"]["samples"]) == (3, 6)
    assert summary["fvd"]["low"] <= summary["fvd"]["high"]
    values = [clip["values"]["generated"]["f_sim"] for clip in data["clips"]]
    assert summary["f_sim"]["value"] == pytest.approx(sum(values) / 3)
    assert data["summary"]["reference"]["f_sim"]["value"] > summary["f_sim"]["value"]
    folder = bench / "made-eval"
    assert json.loads((folder / "results.json").read_text()) == data
    rows = (folder / "clips.csv").read_text().splitlines()
    assert len(rows) == 1 + 6
    assert rows[0].startswith("id,side,file,frames,f_sim")
    assert r"\begin{tabular}{lrr}" in (folder / "table.tex").read_text()


def test_a_set_is_at_no_distance_from_itself(bench: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        write_clip(bench / "made" / f"{name}.mp4", frames=34, seed=seed)
    made = bench / "made"
    done = run(made, "--reference", made, "--json")
    data = results(done)
    assert done.exit_code == 0
    assert data["summary"]["generated"]["fvd"]["value"] == pytest.approx(0, abs=1e-9)
    assert data["summary"]["generated"]["fvd"]["high"] == pytest.approx(0, abs=1e-9)
    assert data["summary"]["generated"]["f_sim"] == data["summary"]["reference"]["f_sim"]
    encoded = results(run(made, "--reference", made, "--json", encode=True))
    assert encoded["summary"]["generated"]["fvd"]["value"] > 1e-6  # what the codec costs
    assert encoded["protocol"]["reference encoding"] == "h264 crf 20"


def test_what_cannot_be_measured_is_named_and_nothing_else_is_lost(bench: Path) -> None:
    made, real = bench / "made", bench / "real"
    for seed, name in enumerate(
        ("good", "fine", "fast", "mute", "dark", "short", "broken", "alone")
    ):
        write_clip(
            made / f"{name}.mp4",
            frames=12 if name == "short" else 20,
            seed=seed,
            fps=30 if name == "fast" else 25,
            sound=name != "mute",
            dark=range(20) if name == "dark" else (3,) if name == "fine" else (),
        )
        if name != "alone":
            write_clip(real / f"{name}.mp4", frames=20, seed=seed + 20)
    (made / "broken.mp4").write_bytes(b"not a video")
    done = run(made, "--reference", real, "--json")
    assert done.exit_code == 1
    data = results(done)
    reasons = {(row["id"], row["metric"], row["side"]): row["reason"] for row in data["left_out"]}
    assert "30 fps" in reasons.pop(("fast", None, "generated"))
    assert "broken.mp4" in reasons.pop(("broken", None, "generated"))
    assert "no clip called alone" in reasons.pop(("alone", None, "generated"))
    assert "no face in any frame" in reasons.pop(("dark", "fsim", "generated"))
    for side in ("generated", "reference"):
        assert "12 frames are too few" in reasons.pop(("short", "fvd", side))
    assert not reasons
    assert data["summary"]["generated"]["f_sim"]["clips"] == 4  # good fine mute short
    assert data["summary"]["generated"]["fvd"]["clips"] == 4  # good fine mute dark
    by_id = {clip["id"]: clip for clip in data["clips"]}
    assert by_id["fine"]["values"]["generated"]["faceless"] == pytest.approx(1 / 20)
    assert "left out: fast (generated): the clip runs at 30 fps" in done.stderr
    resampled = results(run(made, "--reference", real, "--resample", "--json"))
    assert "fast" in {clip["id"] for clip in resampled["clips"]}


def test_one_clip_is_measured_alone_or_against_one_real_clip(bench: Path) -> None:
    write_clip(bench / "made.mp4", frames=34, seed=0)
    write_clip(bench / "other" / "real.mp4", frames=34, seed=1)
    done = run(bench / "made.mp4", "--reference", bench / "other" / "real.mp4", "--json")
    data = results(done)
    assert [clip["id"] for clip in data["clips"]] == ["made"]
    assert data["clips"][0]["reference"].endswith("real.mp4")
    assert "f_sim" in data["summary"]["generated"]
    assert (bench / "made-eval" / "report.html").is_file()
    (bench / "notes.txt").write_text("no video")
    for wrong, hint in (("made.mp5", "did you mean made.mp4?"), ("notes.txt", "videos end in")):
        refused = run(bench / wrong)
        assert refused.exit_code == 3
        assert hint in refused.stderr


def test_what_readers_should_know_is_said(bench: Path) -> None:
    """Of files that are passed over, and of clips that are not as long as their references."""
    write_clip(bench / "made" / "a.mp4", frames=20)
    write_clip(bench / "made" / "b.mp4", frames=33)
    (bench / "made" / "c.gif").write_bytes(b"GIF89a")
    for seed, name in enumerate("ab"):
        write_clip(bench / "real" / f"{name}.mp4", frames=34, seed=seed)
    done = run(bench / "made", "--reference", bench / "real", "--json")
    passed, short = results(done)["notes"]
    assert passed == f"{bench / 'made'}: passed over as no clips: 1 .gif"
    assert short.startswith("a: the clip lasts 0.80 s, its reference 1.36 s")
    assert f"note: {short}" in done.stderr
    assert "passed over" in (bench / "made-eval" / "report.html").read_text()


def test_an_fid_of_few_frames_is_not_left_beside_published_ones_without_a_word() -> None:
    assert "on 2047 frames" in few_frames({"fid": {"samples": 2047}}, "hdtf")[0]
    assert not few_frames({"fid": {"samples": 2048}}, "hdtf")
    assert not few_frames({"fid": {"samples": 20}}, None)


def test_an_interrupted_run_goes_on_where_it_was(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench / "made"
    for seed, name in enumerate("abc"):
        write_clip(made / f"{name}.mp4", seed=seed)
    looks: list[str] = []
    interrupt_at = 3
    plain = catalogue.load_fsim

    def counted(*arguments: Any) -> catalogue.Measure:
        measure = plain(*arguments)

        def look(clip: Any, portrait: Any) -> Any:
            looks.append(clip.path.name)
            if len(looks) == interrupt_at:
                raise KeyboardInterrupt
            return measure(clip, portrait)

        return look

    monkeypatch.setattr(catalogue, "load_fsim", counted)
    arguments = (made, "--reference", made, "--metrics", "fsim", "--json")
    assert run(*arguments).exit_code == 130
    assert not (bench / "made-eval" / "results.json").exists()
    # a clip is its own reference here, so one look serves both sides
    assert looks == ["a.mp4", "b.mp4", "c.mp4"]
    first = results(run(*arguments))
    assert looks == ["a.mp4", "b.mp4", "c.mp4", "c.mp4"]
    assert results(run(*arguments)) == first
    assert len(looks) == 4
    write_clip(made / "b.mp4", seed=9)
    assert results(run(*arguments))["summary"] != first["summary"]
    assert looks[4:] == ["b.mp4"]


def test_another_network_is_another_number(
    bench: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Path]
) -> None:
    for seed, name in enumerate("ab"):
        write_clip(bench / "made" / f"{name}.mp4", seed=seed)
        write_clip(bench / "real" / f"{name}.mp4", seed=seed + 4)
    arguments = (bench / "made", "--reference", bench / "real", "--metrics", "fvd", "--json")
    first = results(run(*arguments))
    again = results(run(*arguments, "--fvd-cut", "first-16"))
    assert again["protocol"]["fvd"] == "i3d_torchscript, cut first-16, resize stretch, n-1"
    bicubic = results(run(*arguments, "--fvd-resize", "bicubic"))
    values = [x["summary"]["generated"]["fvd"]["value"] for x in (first, again, bicubic)]
    assert values[0] == values[1], "20 frames hold one window"
    assert values[0] != values[2]
    other = tiny_weights(bench / "others", seed=5)
    install(monkeypatch, bench / "moda", other)
    changed = results(run(*arguments))
    assert changed["weights"] != first["weights"]
    assert changed["summary"]["generated"]["fvd"] != first["summary"]["generated"]["fvd"]


def test_a_batch_is_measured_by_its_report(bench: Path) -> None:
    out = bench / "out"
    for seed, name in enumerate("ab"):
        write_clip(out / f"{name}.mp4", seed=seed)
    rows = [
        {"output": "a.mp4", "seconds": 0.4, "frames": 20, "fps": 25},
        {"output": "b.mp4", "seconds": 1.2, "frames": 20, "fps": 25},
        {"output": "c.mp4", "error": "no face found in c.png"},
        {"output": "d.mp4", "seconds": 1.0, "frames": 20, "fps": 25},
    ]
    (out / "report.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    done = run(out / "report.jsonl", "--reference", out, "--metrics", "fvd", "--json")
    data = results(done)
    assert done.exit_code == 1
    assert data["summary"]["generated"]["rtf_encode"]["value"] == pytest.approx(1.6 / 1.6)
    assert data["label"] == "out"
    assert [row["reason"] for row in data["left_out"]] == [
        "it was not made: no face found in c.png", f"there is no file {out / 'd.mp4'}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["made", "--metrics", "fvd,nonsense"], 2, "nonsense"),
        (["made", "--metrics", "fvd"], 2, "give --reference"),
        (["made", "--metrics", "sync"], 4, "moda download eval"),
        (["made", "--split", "hdtf-50"], 2, "needs --reference"),
        (["made", "--split", "hdtf-51", "--reference", "real"], 2, "hdtf-100"),
        (["made", "--split", "celebvhq-50", "--reference", "real"], 2, "celebvhq_info.json"),
        (["made", "--generate", "--reference", "real"], 2, "--split"),
        (["made", "--fvd-cut", "last-16"], 2, "last-16"),
        (["nowhere"], 3, "there is no video or folder"),
        (["empty"], 3, "holds no videos"),
        (["made", "--reference", "other"], 3, "namesake"),
        (["mixed", "--reference", "real"], 3, "not a.mp4 a video|no clip can be measured"),
    ],
)
def test_what_cannot_work_is_refused(
    bench: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(bench)
    write_clip(bench / "made" / "a.mp4", frames=2)
    write_clip(bench / "real" / "a.mp4", frames=2)
    write_clip(bench / "other" / "b.mp4", frames=2)
    (bench / "empty").mkdir()
    (bench / "mixed").mkdir()
    (bench / "mixed" / "a.mp4").write_bytes(b"x")
    done = run(*arguments)
    assert done.exit_code == code, done.stderr
    lines = done.stderr.splitlines()
    assert any(part in line for part in message.split("|") for line in lines), done.stderr
    assert not (bench / "nowhere-eval").exists()


def test_the_paper_is_shown_beside_its_own_split_only(bench: Path) -> None:
    from moda_cli.evaluate.tables import paper_rows

    write_clip(bench / "made" / "a.mp4")
    write_clip(bench / "real" / "a.mp4", seed=3)
    done = run(bench / "made", "--reference", bench / "real")
    assert done.exit_code == 0, done.stderr
    assert "made" in done.stdout
    assert "F-SIM" in done.stdout
    assert "(paper)" not in done.stdout
    data = json.loads((bench / "made-eval" / "results.json").read_text())
    rows = {row.name: row.cells for row in paper_rows({**data, "dataset": "hdtf"})}
    # FVD of one window is not defined, so its published values have nothing beside them
    assert "1 and 1 samples" in data["metrics"]["fvd"]["reason"]
    assert rows["MoDA (paper)"] == {"f_sim": {"value": 0.927}}
    assert rows["ground truth (paper)"] == {"f_sim": {"value": 0.86}}
    assert list(rows)[-2:] == ["real clips", "made"]


def test_a_fault_is_remembered_like_a_result(tmp_path: Path) -> None:
    cache, asked = Cache(tmp_path), []

    def faulty() -> dict[str, Any]:
        asked.append(1)
        raise InputError("no face", hint="show one")

    for _ in range(2):
        with pytest.raises(InputError, match="no face") as caught:
            cache.keep("ab" * 32, faulty)
        assert caught.value.hint == "show one"
    cache.keep("cd" * 32, dict)
    cache.keep("cd" * 32, faulty)
    assert asked == [1]
    scalar = {"x": np.array(2.5), "y": np.arange(6).reshape(2, 3).T}
    for _ in range(2):
        kept = cache.keep("ef" * 32, lambda: scalar)
        assert float(kept["x"]) == 2.5
        np.testing.assert_array_equal(kept["y"], scalar["y"])


def test_without_weights_the_mouth_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "moda", {})
    speech = tmp_path / "speech.wav"
    wave = read_audio(EXAMPLES / "speech.wav")[: 3 * 16_000]
    soundfile.write(speech, wave, 16_000)
    (tmp_path / "made").mkdir()
    path = tmp_path / "made" / "a.mp4"
    Pipeline.load("mini", "cpu").generate(ClipConfig(EXAMPLES / "portrait.png", speech, path))
    done = CliRunner().invoke(app, ["eval", str(path.parent), "--json"])
    data = results(done)
    assert done.exit_code == 0, done.stderr
    assert {row["metric"] for row in data["left_out"]} == {"silence_motion"}
    assert "left out: silence_motion of a (generated): the sound has no pauses" in done.stderr
    assert data["clips"][0]["values"]["generated"]["lip_sync"] > 0.4
    missing = {n for n, state in data["metrics"].items() if state["status"] == "weights missing"}
    assert missing == {"fid", "fvd", "fsim", "sync", "smooth"}
    assert "moda download eval" in data["metrics"]["sync"]["reason"]
    write_video(read_video(path), path.with_name("mute.mp4"), 25)
    done = CliRunner().invoke(app, ["eval", str(path.parent), "--json"])
    mute = next(clip for clip in results(done)["clips"] if clip["id"] == "mute")
    assert "jitter" in mute["values"]["generated"]
    assert done.exit_code == 1, "its mouth was held against nothing"
