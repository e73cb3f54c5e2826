"""Subtitles: read with their faults named, drawn where and when they should be, or kept beside."""

from pathlib import Path

import numpy as np
import pytest

from media_files import decode_frames, ffmpeg, make, probe
from moda_cli.config import FPS
from moda_cli.errors import InputError, UsageError
from moda_cli.media import write_video
from moda_cli.media.lettering import Lettering, find_font
from moda_cli.media.subtitles import Cue, read_srt, srt_text

GOOD = "1\n00:00:00,500 --> 00:00:01,000\nHello <i>you</i>\n\n2\n00:00:02.0 --> 01:00:03,5\nBye\n"
TIMES = "00:00:00,500 --> 00:00:01,000"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.srt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD.encode("utf-16"),
        "\n\n" + GOOD.replace("1\n00", "00", 1),
        GOOD + "\n3\n00:00:09,000 --> 00:00:10,000\n<i></i>\n",
        "\n\n".join(reversed(GOOD.strip().split("\n\n"))),
    ],
    ids=["unix", "windows", "mark", "utf-16", "no number", "no text", "in disorder"],
)
def test_srt_as_it_is_found(tmp_path: Path, text: str | bytes) -> None:
    first, second = read_srt(written(tmp_path, text))
    assert (first.start_s, first.end_s, first.plain) == (0.5, 1.0, "Hello you")
    assert (second.start_s, second.end_s, second.plain) == (2.0, 3603.5, "Bye")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{GOOD}\nthree\n{TIMES}\nx\n", "line 9: 'three'"),
        (f"1\n{TIMES.replace('-->', '->')}\nx\n", "line 2: .* where the times should be"),
        ("1\n", "line 2: nothing where"),
        ("1\n00:00:02,000 --> 00:00:01,000\nx\n", "line 2: it ends before it starts"),
        ("1\n00:60:00,000 --> 00:62:00,000\nx\n", "line 2: there is no time 0:60:00"),
        ("1\n00:59:60,000 --> 00:62:00,000\nx\n", "line 2: there is no time 0:59:60"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nx\n", "is WebVTT"),
        (b"1\n\n\xff\xe9", "line 3 is not in UTF-8"),
        ("", "holds no subtitle"),
    ],
)
def test_faults_are_named_with_file_and_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=rf"a\.srt.* ?{words}") as raised:
        read_srt(written(tmp_path, text))
    assert raised.value.hint


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    cues = read_srt(written(tmp_path, GOOD))
    assert read_srt(written(tmp_path, srt_text(cues))) == cues


def grey(level: int, size: int = 360) -> np.ndarray:
    return np.full((size, size * 2, 3), level, np.uint8)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_label_is_read_on_any_ground_and_stays_in_its_corner(level: int) -> None:
    frame = grey(level)
    drawn = Lettering("AI-generated")(frame, 0.0)
    changed = (drawn != frame).any(axis=-1)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[-1] < 60
    assert columns[-1] < 200
    plate = drawn[rows[0] : rows[-1], columns[0] : columns[-1]]
    assert plate.max() == 255  # the letters
    assert np.median(plate) < 145  # on something darker
    assert rows[-1] - rows[0] >= 0.05 * 360
    assert (frame == level).all()  # the renderer's own array is left alone


def test_subtitles_are_seen_while_they_last_and_inside_the_frame() -> None:
    cues = [Cue(0.5, 1.0, "Hello"), Cue(0.8, 2.0, "W" * 300)]
    lettering, frame = Lettering(None, cues), grey(90)

    def height(seconds: float) -> int:
        changed = (lettering(frame, seconds) != frame).any(axis=(1, 2))
        return int(changed.sum())

    assert [height(at) for at in (0.0, 0.49, 2.0)] == [0, 0, 0]
    assert 0 < height(0.5) < height(1.5) < height(0.9)  # a line, many, and both
    changed = (lettering(frame, 0.5) != frame).any(axis=-1)
    assert not changed[:270].any()
    columns = np.flatnonzero(changed.any(axis=0))
    assert abs(columns.mean() - 359.5) < 2
    long = (lettering(frame, 1.5) != frame).any(axis=(0, 2))
    assert not long[:10].any()
    assert not long[-10:].any()


def test_characters_that_the_bundled_font_lacks_come_from_another_or_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find_font("plain text") is None
    monkeypatch.setattr("moda_cli.media.lettering._system_fonts", tuple)
    find_font.cache_clear()
    with pytest.raises(UsageError, match="has 中") as raised:
        find_font("a 中 b")
    assert "--font" in raised.value.hint
    find_font.cache_clear()


def test_a_font_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.srt is no font"):
        find_font("text", written(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "mov_text"), (".mov", "mov_text"), (".mkv", "subrip"), (".webm", "webvtt")],
)
def test_a_track_beside_picture_and_sound(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"a{suffix}"
    cues = [Cue(0.2, 0.6, "Grüße, 中"), Cue(0.7, 1.0, "two\nlines")]
    frames = [np.full((48, 64, 3), 99, np.uint8)] * 25
    write_video(frames, path, FPS, audio=np.zeros(16000, np.float32), subtitles=cues)
    report = probe(path)
    assert f"Subtitle: {codec}" in report
    assert "Audio:" in report
    make("-i", path, "-map", "0:s:0", tmp_path / "back.srt")
    assert [(cue.start_s, cue.end_s, cue.plain) for cue in read_srt(tmp_path / "back.srt")] == [
        (cue.start_s, cue.end_s, cue.text) for cue in cues
    ]
    assert len(decode_frames(path)) == 25
    assert not ffmpeg("-v", "error", "-i", path, "-f", "null", "-").stderr
