"""Lists of jobs: what they mean, and that everything wrong with one is said before it starts."""

import codecs
import json
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from moda_cli.cli import app
from moda_cli.cli.generate import generate
from moda_cli.config import LIMITS, ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import InputError, UsageError
from moda_cli.jobs.clip_list import (
    Job,
    Shard,
    batch_folder,
    jobs_from_file,
    jobs_from_folders,
    parse_shard,
    split_output,
)
from moda_cli.jobs.options import KINDS, NEGATED

BASE = ClipConfig(Path(), Path(), Path(), sampler=SamplerConfig(steps=5, seed=7))
EXAMPLE = Path(__file__).parents[2] / "examples" / "jobs.csv"


def listed(
    folder: Path, text: str, name: str = "jobs.csv", output: Path | None = None
) -> list[Job]:
    (folder / name).write_text(text)
    return jobs_from_file(folder / name, BASE, output)


def lines_of(folder: Path, text: str, name: str = "jobs.csv") -> list[str]:
    """The faults of a list, one a line."""
    with pytest.raises(UsageError) as caught:
        listed(folder, text, name)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_columns_are_options_and_blanks_the_command_line(tmp_path: Path) -> None:
    jobs = listed(
        tmp_path,
        "\ufeffportrait,audio,output,emotion,audio-scale,--steps,no_blink,crop,save_motion\n"
        "a.png,~/b.wav,{portrait}_{audio}_{seed}_{emotion}.mkv,happy,2.5,,,,\n"
        '/x/a.png,"b, c.wav",,"0:sad,1.5:happy",,20,true,yes,m/{index:02d}.safetensors\n',
    )
    first, second = (job.clip for job in jobs)
    assert first.portrait == tmp_path / "a.png"
    assert first.audio == Path.home() / "b.wav"
    assert first.output == tmp_path / "a_b_7_happy.mkv"
    assert first.emotion == "happy"
    assert first.sampler == SamplerConfig(steps=5, seed=7, audio_scale=2.5)
    assert first.render == RenderConfig()
    assert second.portrait == Path("/x/a.png")
    assert second.output == tmp_path / "a_b, c.mp4"
    assert second.emotion == "0:sad,1.5:happy"
    assert second.sampler == SamplerConfig(steps=20, seed=7)
    assert (second.render.blink, second.render.full_frame) == (False, False)
    assert second.save_motion == tmp_path / "m" / "02.safetensors"
    assert [job.origin for job in jobs] == ["line 2", "line 3"]


def test_json_lines_mean_the_same(tmp_path: Path) -> None:
    rows = [
        {
            "portrait": "a.png",
            "audio": "b.wav",
            "steps": 3,
            "blink": False,
            "fps": 12,
            "size": None,
        },
        {"portrait": "a.png", "audio": "b.wav", "output": "sub/{audio}", "seed": "9"},
    ]
    text = "\n\n".join(map(json.dumps, rows))
    jobs = listed(tmp_path, text, "jobs.jsonl", tmp_path / "out")
    assert jobs[0].clip.sampler.steps == 3
    assert jobs[0].clip.render == RenderConfig(blink=False, fps=12)
    assert jobs[0].clip.output == tmp_path / "out" / "a_b.mp4"
    assert jobs[1].clip.output == tmp_path / "out" / "sub" / "b" / "a_b.mp4"
    assert jobs[1].clip.sampler.seed == 9


def test_json_lines_on_standard_input_and_every_fault_at_once(tmp_path: Path) -> None:
    rows = ['{"portrait": "a.png", "audio": 5}', "{broken", '{"portrait": "p", "audio": "a"}', "[]"]
    command = ["generate", "--jobs", "-", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command, input="\n".join(rows))
    assert result.exit_code == 2
    assert "standard input has 3 faults" in result.stderr
    assert [f"line {n}" in result.stderr for n in (1, 2, 3, 4)] == [True, True, False, True]
    assert not (tmp_path / "out").exists()


def test_every_fault_of_a_list_is_named(tmp_path: Path) -> None:
    faults = lines_of(
        tmp_path,
        "portrait,audio,output,steps,emotion,face,fps,size,crf,blink,guidance,audio_scale,colour\n"
        "a.png,,x.mp4,,,,,,,,,,red\n"
        "a.png,b.wav,1.mp4,1001,,,,,,,,,\n"
        "a.png,b.wav,2.mp4,ten,,,,,,,,,\n"
        "a.png,b.wav,3.mp4,,joy,,,,,,,,\n"
        "a.png,b.wav,4.mp4,,,middle,,,,,,,\n"
        "a.png,b.wav,5.mp4,,,,nan,,,,,,\n"
        "a.png,b.wav,6.mp4,,,,,257,,,,,\n"
        "a.png,b.wav,7.mp4,,,,,,99,,,,\n"
        "a.png,b.wav,8.mp4,,,,,,,perhaps,,,\n"
        "a.png,b.wav,9.mp4,,,,,,,,2,2,\n"
        "a.png,b.wav,{name}.mp4,,,,,,,,,,\n"
        "a.png,b.wav,10.xyz,,,,,,,,,,\n"
        "a.png,b.wav,same.mp4,,,,,,,,,,\n"
        "a.png,b.wav,sub/../same.mp4,,,,,,,,,,\n"
        "a.png,in.mp4,in.mp4,,,,,,,,,,\n"
        "a.png,b.wav,16.mp4,,,,,,,,,,,surplus\n"
        "a.png,b.wav,17.mp4,0,joy,,,,,,,,\n",
    )
    expected = {
        "colour": "unknown column 'colour'",
        "line 2": "audio is missing",
        "line 3": "steps 1001 is not in 1-1000",
        "line 4": "steps 'ten' is not an integer",
        "line 5": "unknown emotion 'joy'",
        "line 6": "no such face: 'middle'",
        "line 7": "fps nan is not in 1-120",
        "line 8": "size 257 is odd",
        "line 9": "crf 99 is not in 0-63",
        "line 10": "blink 'perhaps' is neither true nor false",
        "line 11": "guidance cannot be combined",
        "line 12": "there is no 'name'",
        "line 13": "no video format .xyz",
        "line 15": "same.mp4 is already written by line 14",
        "line 16": "in.mp4 is an input of line 16",
        "line 17": "more cells than the 13 columns",
        "line 18": "steps 0 is not in 1-1000",
        "line 18: ": "unknown emotion 'joy'",
    }
    assert len(faults) == len(expected)
    for where, words in expected.items():
        assert any(where in fault and words in fault for fault in faults), (where, faults)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("jobs.csv", "portrait,audio,model\na,b,mini\n", "whole batch"),
        ("jobs.csv", "portrait,audio,audio\na,b,c\n", "two columns 'audio'"),
        ("jobs.csv", "portrait,audio\n", "holds no jobs"),
        ("jobs.csv", "portrait\na\nb\n", "no column 'audio'"),
        ("jobs.jsonl", '{"portrait": "a", "audio": "b", "volume": 3}', "unknown column 'volume'"),
        ("jobs.jsonl", '{"portrait": "a", "audio": "b", "emotoin": "sad"}', "mean emotion?"),
        ("jobs.jsonl", '{"portrait": "a", "audio": "b", "steps": [3]}', "steps"),
        ("jobs.jsonl", '{"portrait": "a", "audio": "b", "steps": true}', "steps"),
    ],
)
def test_lists_that_cannot_be(tmp_path: Path, name: str, text: str, words: str) -> None:
    (fault,) = lines_of(tmp_path, text, name)
    assert words in fault


ROWS = "Portrait;Audio;Steps;Head Motion;Emotion;\na.png;b.wav;12.0;0,5;happy;\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("jobs.csv", ROWS.encode()),
        ("jobs.csv", ("sep=;\r\n" + ROWS.replace("\n", "\r\n")).encode("utf-8-sig")),
        ("jobs.tsv", ROWS.replace(";", "\t").encode()),
        ("jobs.txt", ROWS.replace(";", "\t").encode("utf-16")),
        ("jobs.csv", codecs.BOM_UTF16_BE + ROWS.encode("utf-16-be")),
        ("jobs.csv", ROWS.replace("0,5", '"0.5"').replace(";", ",").encode()),
        ("jobs.csv", ROWS.replace(";", "|").replace("a.png", '"a.png"').encode()),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    (job,) = jobs_from_file(tmp_path / name, BASE, None)
    clip = job.clip
    assert (clip.portrait, clip.audio) == (tmp_path / "a.png", tmp_path / "b.wav")
    assert (clip.sampler.steps, clip.render.head_motion, clip.emotion) == (12, 0.5, "happy")


def test_a_number_that_is_not_whole_is_no_count(tmp_path: Path) -> None:
    for value in ("12.5", "1e400", "nan", "0x10"):
        (fault,) = lines_of(tmp_path, f"portrait,audio,steps\na,b,{value}\n")
        assert f"steps '{value}' is not an integer" in fault
    assert lines_of(tmp_path, "sep=;\nportrait;audio;steps\na;b;0\n") == [
        "line 3: steps 0 is not in 1-1000"
    ]


def test_unreadable_lists(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(UsageError, match="cannot read the jobs"):
            jobs_from_file(path, BASE, None)
    (tmp_path / "latin.csv").write_bytes("portrait,audio\nJos\xe9.png,b.wav".encode("latin-1"))
    with pytest.raises(UsageError, match="cannot read") as caught:
        jobs_from_file(tmp_path / "latin.csv", BASE, None)
    assert "save it as UTF-8" in caught.value.hint


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for side, names in (("p", ["a.png", "b.JPG", "c.webp", ".d.png", "notes.txt"]),
                        ("s", ["a.wav", "b.m4a", "e.flac"])):  # fmt: skip
        (tmp_path / side).mkdir()
        for name in names:
            (tmp_path / side / name).touch()
    return tmp_path / "p", tmp_path / "s"


def test_files_of_two_folders_pair_by_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs, alone = jobs_from_folders(*folders, BASE, out, product=False)
    assert [job.clip.output for job in jobs] == [out / "a_a.mp4", out / "b_b.mp4"]
    assert [Path(name).name for name in alone] == ["c.webp", "e.flac"]
    jobs, alone = jobs_from_folders(*folders, BASE, out, product=True)
    assert len({job.output for job in jobs}) == 9
    assert alone == []
    jobs, _ = jobs_from_folders(folders[0] / "a.png", folders[1], BASE, out, product=False)
    assert [job.clip.output.name for job in jobs] == ["a_a.mp4", "a_b.mp4", "a_e.mp4"]
    template = out / "{portrait}" / "{seed}.webm"
    jobs, _ = jobs_from_folders(*folders, BASE, template, product=False)
    assert [job.clip.output for job in jobs] == [out / "a" / "7.webm", out / "b" / "7.webm"]


def test_a_folders_videos_are_portraits_unless_they_are_its_speech(tmp_path: Path) -> None:
    films, speeches = tmp_path / "films", tmp_path / "speeches"
    for folder, names in ((films, ("a.mp4", "b.png")), (speeches, ("a.wav", "b.mp4"))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    jobs, alone = jobs_from_folders(films, speeches, BASE, tmp_path / "out", product=False)
    assert [(job.clip.portrait.name, job.clip.audio.name) for job in jobs] == [
        ("a.mp4", "a.wav"), ("b.png", "b.mp4"),
    ]  # fmt: skip
    assert not alone
    (films / "b.mp4").touch()
    jobs, _ = jobs_from_folders(films, films, BASE, tmp_path / "out", product=False)
    assert [(job.clip.portrait.name, job.clip.audio.name) for job in jobs] == [("b.png", "b.mp4")]


def test_folders_that_cannot_be_a_batch(folders: tuple[Path, Path], tmp_path: Path) -> None:
    portraits, speeches = folders

    def refused(output: Path, words: str, error: type[Exception] = UsageError) -> None:
        with pytest.raises(error, match=words):
            jobs_from_folders(portraits, speeches, BASE, output, product=False)

    refused(tmp_path / "one.mp4", "one file", InputError)
    refused(tmp_path / "{seed}.mp4", "already written")
    with pytest.raises(InputError, match="absent"):
        jobs_from_folders(portraits, tmp_path / "absent", BASE, tmp_path / "out", product=False)
    (portraits / "a.jpg").touch()
    refused(tmp_path / "out", "have one name")
    for path in speeches.iterdir():
        path.unlink()
    refused(tmp_path / "out", "holds no files")
    (speeches / "z.wav").touch()
    (portraits / "a.jpg").unlink()
    refused(tmp_path / "out", "--product")


def test_where_a_batch_lives() -> None:
    assert split_output(Path("out")) == (Path("out"), "{portrait}_{audio}.mp4")
    assert split_output(Path("out/{seed}/%06d.png")) == (Path("out"), "{seed}/%06d.png")
    assert split_output(Path("/x/{a}/b/{c}.mp4")) == (Path("/x"), "{a}/b/{c}.mp4")
    assert batch_folder(None, Path("lists/jobs.csv")) == Path("lists")
    assert batch_folder(None, Path("-")) == Path()


@given(count=st.integers(1, 12), jobs=st.lists(st.integers()))
def test_shards_are_disjoint_and_complete(count: int, jobs: list[int]) -> None:
    numbered = list(enumerate(jobs))
    shares = [parse_shard(f"{index}/{count}").of(numbered) for index in range(count)]
    assert sorted(job for share in shares for job in share) == numbered
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["1/1", "2/2", "-1/2", "1", "a/b", "0/0"])
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)
    assert parse_shard("1/2") == Shard(1, 2)


def test_jobs_take_what_the_command_line_takes() -> None:
    options = get_type_hints(generate, include_extras=True)
    for name, limits in LIMITS.items():
        (option,) = options[name].__metadata__
        assert [option.parser(str(limit)) for limit in limits] == list(limits)
        for beyond in (limits[0] - 1, limits[1] + 1):
            with pytest.raises(UsageError, match=str(beyond)):
                option.parser(str(beyond))
    assert set(KINDS) <= options.keys()
    assert set(NEGATED.values()) <= set(KINDS)


def test_options_of_a_batch_are_refused_for_one_clip(tmp_path: Path) -> None:
    command = ["generate", "a.png", "b.wav", "-o", str(tmp_path / "o.mp4"), "--shard", "0/2"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert CliRunner().invoke(app, ["generate", "a.png"]).exit_code == 2


def test_the_example_is_a_list_of_jobs() -> None:
    jobs = jobs_from_file(EXAMPLE, BASE, Path("out"))
    assert len(jobs) >= 3
    for job in jobs:
        assert job.clip.portrait.is_file()
        assert job.clip.audio.is_file()
