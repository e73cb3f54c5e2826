"""The corpus the bundled model learns from: lips close, emotions differ, seeds decide."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from moda_cli.config import EMOTIONS, FPS, NO_EMOTION, SAMPLES_PER_FRAME
from moda_cli.data.synthetic import voices
from moda_cli.data.synthetic.behaviour import Performance, jaw_offset, perform
from moda_cli.data.synthetic.corpus import (
    TEST_VOICES,
    Made,
    make_corpus,
    neutral_motion,
    train_plans,
)
from moda_cli.data.synthetic.corpus import test_plans as plans_for_testing
from moda_cli.data.synthetic.text import LANGUAGES, TEMPLATES, WORDS, is_test, sentence
from moda_cli.data.synthetic.visemes import CLOSED_JAW, LABIAL, VISEMES, Phone, lips, to_visemes
from moda_cli.data.synthetic.voices import Request, Voice, synthesise
from moda_cli.errors import InputError
from moda_cli.motion import ARTICULATORS, decode

PHONES = st.tuples(st.sampled_from(sorted(VISEMES)), st.floats(0.02, 0.25))


def in_sequence(spoken: list[tuple[str, float]], lead_s: float = 0.3) -> list[Phone]:
    """Phones one after another, with silence before and behind."""
    phones, now = [Phone("SIL", 0, lead_s)], lead_s
    for symbol, duration in spoken:
        phones.append(Phone(symbol, now, now + duration))
        now += duration
    return [*phones, Phone("SIL", now, now + 1)]


def frames_of(phones: list[Phone]) -> int:
    return int(phones[-1].end * FPS)


@given(st.lists(PHONES, min_size=1, max_size=25), st.floats(-3, 8))
def test_lips_meet_in_every_labial(spoken: list[tuple[str, float]], offset: float) -> None:
    phones = in_sequence(spoken)
    jaw = lips(phones, frames_of(phones), offset)[:, 0]
    centres = (np.arange(len(jaw)) + 0.5) / FPS
    for symbol, start, end in phones:
        if symbol == LABIAL:
            inside = (centres >= start) & (centres < end)
            inside[int((start + end) / 2 * FPS)] = True
            assert jaw[inside].min() == CLOSED_JAW


def test_a_spoken_sentence_opens_and_rounds_where_it_should() -> None:
    spoken = [("M", 0.08), ("AA", 0.15), ("M", 0.08), ("UW", 0.15), ("S", 0.1), ("IY", 0.15)]
    phones = in_sequence(spoken)
    jaw, spread, rounded = lips(phones, frames_of(phones)).T
    at = {p.symbol: int((p.start + p.end) / 2 * FPS) - 1 for p in phones}
    assert 55 < jaw[at["AA"]] < 85
    assert rounded[at["UW"]] > 8
    assert rounded[at["UW"]] > 3 * rounded[at["AA"]]
    assert spread[at["IY"]] > 8


def test_the_mouth_rests_in_silence() -> None:
    phones = [Phone("SIL", 0, 1), Phone("AA", 1, 1.2), Phone("SIL", 1.2, 2.4)]
    mouth = lips(phones, 60, jaw_offset=7)
    assert not mouth[:20].any()
    assert not mouth[36:].any()
    assert not lips([Phone("SIL", 0, 2)], 50, jaw_offset=7).any()


@pytest.mark.parametrize(
    ("symbol", "ipa", "expected"),
    [
        ("p", False, ["M"]),
        ("ay", False, ["AA", "IY"]),
        ("aɪ", True, ["AA", "IH"]),
        ("tʃ", True, ["T", "SH"]),
        ("ɑ̃ː", True, ["AA"]),
        ("ɲ", True, ["Y"]),
        ("", True, ["SIL"]),
        ("pau", False, ["SIL"]),
    ],
)
def test_viseme_classes(symbol: str, ipa: bool, expected: list[str]) -> None:
    assert [p.symbol for p in to_visemes([Phone(symbol, 0, 1)], ipa)] == expected


def act(emotion: int, seed: int, num_frames: int = 200) -> Performance:
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(num_frames * SAMPLES_PER_FRAME).astype(np.float32)
    sound *= np.repeat(rng.random(num_frames // 10) < 0.6, 10 * SAMPLES_PER_FRAME)
    spoken = [(str(rng.choice(sorted(VISEMES))), 0.08) for _ in range(80)]
    phones = in_sequence(spoken)
    mouth = lips(phones, num_frames, jaw_offset(emotion, 1.0))
    return perform(mouth, phones, sound, emotion, float(rng.uniform(0.8, 1.1)), rng)


@pytest.mark.parametrize("emotion", range(len(EMOTIONS)))
def test_every_clip_starts_at_rest(emotion: int) -> None:
    articulators, gaze, pose = act(emotion, seed=1)
    assert not articulators[0].any()
    assert not gaze[0].any()
    assert not pose[0].any()
    assert np.abs(np.diff(pose, axis=0)).max() < 1.5  # degrees a frame
    others = [i for i, name in enumerate(ARTICULATORS) if not name.startswith(("jaw", "lid"))]
    assert np.abs(np.diff(articulators[:15, others], axis=0)).max() < 4


def test_emotions_are_told_apart_by_the_mean_face() -> None:
    def mean_face(emotion: int, seed: int) -> np.ndarray:
        return act(emotion, seed)[0].mean(axis=0)

    seeds, unseen = range(6), range(100, 112)
    labelled = range(NO_EMOTION)
    faces = np.array([[mean_face(e, seed) for seed in seeds] for e in labelled])
    scale = faces.reshape(-1, len(ARTICULATORS)).std(axis=0)
    centres = faces.mean(axis=1) / scale
    right = [
        np.linalg.norm(centres - mean_face(e, seed) / scale, axis=1).argmin() == e
        for e in labelled
        for seed in unseen
    ]
    assert np.mean(right) > 0.95


def test_neutral_is_a_closed_mouth_and_open_eyes() -> None:
    neutral = neutral_motion()
    assert neutral.shape == (70,)
    expression = neutral[:63].view(21, 3)
    assert expression[19, 1] == pytest.approx(-0.02)
    assert expression[11, 1] == expression[15, 1] == pytest.approx(-0.004)
    assert not neutral[67:].any()


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_reproducible_varied_and_split_by_text(language: str) -> None:
    draws = [sentence(language, np.random.default_rng(seed), False) for seed in range(200)]
    assert draws == [sentence(language, np.random.default_rng(seed), False) for seed in range(200)]
    assert len(set(draws)) > 190
    assert not any(is_test(text) or "{" in text for text in draws)
    assert is_test(sentence(language, np.random.default_rng(0), True))
    for template in TEMPLATES[language]:
        assert all(name in WORDS[language] for name in template.replace("}", "{").split("{")[1::2])


def test_held_out_voices_are_never_planned_for_training() -> None:
    plans = list(train_plans(2000, seed=0))
    speakers = {request.voice.name for plan in plans for request in plan.requests}
    assert not speakers & {"rms", "kal_diphone", "kal", "kal16"}
    assert {"slt", "awb", "ked_diphone", "slt_hts"} <= speakers
    held_out = list(plans_for_testing(4, seed=0))
    for voice in TEST_VOICES:
        mine = [p for p in held_out if p.requests[0].voice == voice]
        assert len(mine) >= 40
        assert {p.emotion for p in mine} == set(range(len(EMOTIONS)))
    seen = {request.text for plan in plans for request in plan.requests}
    assert not seen & {request.text for plan in held_out for request in plan.requests}


def test_a_missing_engine_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for engine, name in (("flite", "rms"), ("festival", "kal_diphone")):
        with pytest.raises(InputError) as caught:
            synthesise([Request(Voice(engine, name), "Hello.")])
        assert engine in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    "voice",
    [
        Voice("flite", "slt"),
        Voice("festival", "ked_diphone"),
        Voice("festival", "slt_hts"),
        Voice("espeak", "en-us+f2"),
        Voice("espeak", "de+m3", "de"),
    ],
)
def test_phones_lie_under_the_sound(voice: Voice) -> None:
    speech = synthesise([Request(voice, "Papa bought a bumpy boat.", rate=0.9)])[0]
    assert speech.phones[-1].end <= len(speech.wave) / voices.SAMPLE_RATE + 0.05
    level = np.sqrt(np.mean(speech.wave[: len(speech.wave) // 160 * 160].reshape(-1, 160) ** 2, 1))
    centres = np.arange(len(level)) / 100 + 0.005
    sounds: dict[str, list[float]] = {"M": [], "vowel": []}
    for name, start, end in to_visemes(speech.phones, voice.ipa):
        inside = level[(centres >= start) & (centres < end)]
        kind = "M" if name == LABIAL else "vowel" if VISEMES[name].jaw > 30 else ""
        if kind:
            sounds[kind] += inside.tolist()
    assert np.median(sounds["vowel"]) > 2 * np.median(sounds["M"])


@pytest.mark.slow
@pytest.mark.usefixtures("many_threads")
def test_a_corpus_is_whole_and_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    for workers in (1, 2):
        made = make_corpus(
            tmp_path / str(workers), hours=0.06, seed=3, workers=workers,
            on_clip=lambda *count: counts.append(count),
        )  # fmt: skip
    one, two = tmp_path / "1", tmp_path / "2"
    assert (one / "index.jsonl").read_text() == (two / "index.jsonl").read_text()
    rows = [json.loads(line) for line in (one / "index.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "test"}
    assert made == Made(len(rows), sum(row["frames"] for row in rows) / FPS / 3600)
    assert counts[-1] == (len(rows), len(rows))
    assert len(set(counts)) > 1  # it was told while they were made
    neutral = neutral_motion()
    for row in rows:
        clip = load_file(one / f"{row['clip']}.safetensors")
        other = load_file(two / f"{row['clip']}.safetensors")
        assert all(torch.equal(clip[name], other[name]) for name in clip)
        assert clip["motion"].shape == (row["frames"], 70)
        assert clip["audio"].shape == (row["frames"], 4, 80)
        assert 85 <= row["frames"] <= 250
        assert torch.equal(clip["motion"][0], neutral)
        assert clip["emotion"].sum() == (row["emotion"] != "none")
        assert (one / f"{row['clip']}.wav").exists() == (row["split"] == "test")
        jaw = decode(clip["motion"][:, :63] - neutral[:63])[:, 0]
        for start, end in row["labial"]:
            if end - start >= 1 / FPS:
                assert jaw[round(start * FPS) : round(end * FPS)].min() < -3


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals a process group")
def test_an_interrupted_corpus_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "moda_cli", "extract", "--synthetic", "0.06", "-o"]
    one, other = tmp_path / "one", tmp_path / "other"
    whole = subprocess.run([*command, str(one)], capture_output=True, text=True, check=True)
    assert re.search(r"^\d+ clips, 0\.\d\d h of speech and motion$", whole.stderr, re.MULTILINE)
    process = subprocess.Popen(
        [*command, str(other)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (made := list(other.glob(".chunks/*.jsonl"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "kept; the same command goes on" in said
    assert "Traceback" not in said
    assert not (other / "index.jsonl").exists()
    row = json.loads(made[0].read_text().splitlines()[0])
    clip = other / f"{row['clip']}.safetensors"
    before = clip.stat().st_mtime_ns
    subprocess.run([*command, str(other)], check=True, capture_output=True)
    assert clip.stat().st_mtime_ns == before
    assert (other / "index.jsonl").read_text() == (one / "index.jsonl").read_text()
    for path in one.glob("*.safetensors"):
        assert path.read_bytes() == (other / path.name).read_bytes()
    assert not (other / ".chunks").exists()
