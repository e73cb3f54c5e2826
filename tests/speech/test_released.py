"""The released audio front end: samples against the release's, pieces, streamed features."""

import json

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from by_rule import GOLDEN
from moda_cli import media
from moda_cli.speech import released as speech
from moda_cli.speech.released import (
    ADDED,
    PIECE,
    SILENCE,
    SpeechFeatures,
    normalise_piece,
    pad_piece,
    piece_bounds,
    pre_emphasise,
    through_pcm16,
)
from speech_by_rule import speech_encoder_by_rule


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "audio_front.safetensors")


@pytest.fixture(scope="module")
def encoder():
    return speech_encoder_by_rule("hubert_small.json")


def wave_of(samples: Tensor) -> np.ndarray:
    return samples.numpy().astype(np.float32) / np.float32(32768)


def int16(wave: np.ndarray) -> np.ndarray:
    return (wave * 32768).astype(np.int16)


def test_pre_emphasis_and_sixteen_bits_are_the_released_ones(golden) -> None:
    emphasised = pre_emphasise(wave_of(golden["speech_i16"]))
    np.testing.assert_allclose(emphasised, golden["preemphasis"].numpy(), atol=1e-6, rtol=1e-4)
    np.testing.assert_array_equal(
        int16(through_pcm16(golden["pcm16.float"].numpy())), golden["pcm16.int"].numpy()
    )
    spoken, count = int16(through_pcm16(emphasised)), len(emphasised)
    for mode, start in (("post", 0), ("pre", SILENCE), ("both", SILENCE)):
        joined = golden[f"joined_i16.{mode}"].numpy()
        np.testing.assert_array_equal(joined[start : start + count], spoken)
        assert len(joined) == count + (2 if mode == "both" else 1) * SILENCE


def test_a_piece_is_normalised_and_padded_as_released(golden) -> None:
    normalised = normalise_piece(wave_of(golden["speech_i16"]))
    np.testing.assert_allclose(normalised, golden["normalised"].numpy(), atol=1e-6, rtol=1e-4)
    for count in (640, 3200):
        padded = pad_piece(normalised[: count + 100])
        torch.testing.assert_close(padded, golden[f"padded.{count}"], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("rate", [48000, 44100, 22050])
def test_sound_is_read_as_the_release_reads_it(rate, golden, tmp_path) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, golden[f"resample.{rate}.stereo_i16"].numpy(), rate, subtype="PCM_16")
    expected = golden[f"resample.{rate}.mono16k"].numpy()
    np.testing.assert_allclose(media.read_audio(path), expected, atol=1e-6, rtol=1e-4)


def test_the_joined_file_the_release_ships(encoder, tmp_path) -> None:
    shipped = load_file(GOLDEN / "audio_shipped.safetensors")
    path = tmp_path / "sound.wav"
    soundfile.write(path, shipped["stereo48k_i16"].numpy(), 48000, subtype="PCM_16")
    joined = shipped["joined16k_i16_head"].numpy()
    features = SpeechFeatures(encoder, media.read_audio(path))
    np.testing.assert_array_equal(int16(features.samples(0, len(joined))), joined)


def test_pieces_are_cut_where_the_release_cuts() -> None:
    for case in json.loads((GOLDEN / "chunking.json").read_text())["cases"]:
        kept = [part for part in case["segments"] if "fails" not in part]
        bounds = piece_bounds(case["total_samples"])
        assert [stop - start for start, stop in bounds] == [part["samples"] for part in kept]
        assert [(stop - start) // 640 for start, stop in bounds] == [p["frames"] for p in kept]


@given(st.integers(640, 5 * PIECE))
def test_pieces_hold_every_frame(num_samples: int) -> None:
    bounds = piece_bounds(num_samples)
    assert [start for start, _ in bounds] == list(range(0, PIECE * len(bounds), PIECE))
    assert sum((stop - start) // 640 for start, stop in bounds) == num_samples // 640


def test_samples_of_any_stretch_are_those_of_the_whole(encoder) -> None:
    wave = np.random.default_rng(0).normal(0, 0.4, 5000).astype(np.float32)
    features = SpeechFeatures(encoder, wave)
    whole = features.samples(0, 5000 + SILENCE)
    assert whole[:5000].any()
    assert not whole[5000:].any()
    for start, stop in ((0, 100), (1, 2), (4990, 5020), (5000, 5100), (6000, 6400)):
        np.testing.assert_array_equal(features.samples(start, stop), whole[start:stop])


def test_features_are_made_once_per_piece_and_zero_past_the_end(monkeypatch, encoder) -> None:
    monkeypatch.setattr(speech, "PIECE", 40 * 640)  # pieces of 40 frames; windows touch two
    encoded: list[int] = []
    hook = encoder.register_forward_pre_hook(lambda _m, args: encoded.append(args[0].shape[1]))
    wave = np.random.default_rng(1).normal(0, 0.1, 60 * 640 + 300).astype(np.float32)
    features = SpeechFeatures(encoder, wave)
    assert len(features) == 60 + ADDED
    windows = [features.window(start, 24) for start in range(0, 110, 16)]
    hook.remove()
    assert encoded == [40 * 640 + 80, 40 * 640 + 80, 30 * 640 + 80]
    assert len(features._kept) == 2
    whole = SpeechFeatures(encoder, wave).window(0, len(features))
    for start, window in zip(range(0, 110, 16), windows, strict=True):
        valid = min(24, 110 - start)
        assert torch.equal(window[:valid], whole[start : start + valid])
        assert not window[valid:].any()
    assert torch.equal(SpeechFeatures(encoder, wave).speech(), whole[:60])


def test_a_piece_is_encoded_by_itself(encoder) -> None:
    """Features jump at 60 s: each piece has its own level and its own attention."""
    wave = np.random.default_rng(2).normal(0, 0.1, PIECE + 640).astype(np.float32)
    features = SpeechFeatures(encoder, wave)
    assert len(features) == 1551
    alone = pad_piece(normalise_piece(features.samples(PIECE, PIECE + 640 + SILENCE)))
    with torch.inference_mode():
        expected = encoder(alone[None])[0]
    assert torch.equal(features.window(1500, 51), expected)
