"""Sync-C and Sync-D: MFCC, SyncNet, S3FD, face tracks, and all of them on a clip."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from by_rule import goldens, key_table, state_by_rule
from metric_networks import red_detector
from moda_cli.errors import InputError
from moda_cli.media.cuts import CutDetector
from moda_cli.media.decode import read_video
from moda_cli.media.sound import read_audio
from moda_cli.metrics import face_track
from moda_cli.metrics.face_track import link_tracks, longest_track
from moda_cli.metrics.networks.mfcc import mfcc, mfcc_filters
from moda_cli.metrics.networks.s3fd import MEAN_RGB, S3FD, decode_boxes, detect_faces, suppress
from moda_cli.metrics.networks.syncnet import (
    SyncNet,
    audio_embeddings,
    overlapping_runs,
    video_embeddings,
)
from moda_cli.metrics.sync import SyncNetworks, align_crops, align_embeddings, pcm16, sync_score
from moda_cli.weights.state import load_strict
from moda_cli.weights.store import require


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def assert_near(actual: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """The golden files' measure: largest difference over largest magnitude."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def by_rule(module: type[nn.Module], table: str, gain: float = 1.0) -> Any:
    with torch.device("meta"):
        network = module()
    load_strict(network, state_by_rule(key_table(table), gain=gain), table)
    return network.eval()


@pytest.fixture(scope="module")
def syncnet() -> SyncNet:
    return by_rule(SyncNet, "syncnet.json")  # type: ignore[no-any-return]


@pytest.mark.parametrize(("module", "table"), [(SyncNet, "syncnet.json"), (S3FD, "s3fd.json")])
def test_names_and_shapes_are_the_checkpoints(module: type[nn.Module], table: str) -> None:
    with torch.device("meta"):
        state = module().state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == key_table(table)


@pytest.mark.parametrize("path", goldens("eval_mfcc.safetensors"))
def test_mfcc(path: Path) -> None:
    golden, _ = read(path)
    assert_near(mfcc_filters(), golden["filterbank"], 1e-9)
    for case in "abc":
        assert_near(mfcc(golden[f"wav_{case}"]), golden[f"mfcc_{case}"], 1e-9)


def test_a_wave_read_from_16_bits_is_heard_as_those_bits() -> None:
    samples = np.arange(-32768, 32768, 7).astype(np.int16)
    assert (pcm16(samples.astype(np.float32) / 32768) == samples).all()


@pytest.mark.parametrize("path", goldens("eval_syncnet.safetensors"))
def test_syncnet(syncnet: SyncNet, path: Path) -> None:
    golden, _ = read(path)
    frames, samples = golden["frames_rgb"], golden["wav"]
    count = len(golden["video_emb"])
    with torch.inference_mode():
        window = torch.from_numpy(frames[:5, :, :, ::-1].copy()).permute(3, 0, 1, 2)[None].float()
        assert_near(syncnet.netcnnlip(window).flatten(1), golden["video_conv_feat0"])
    video, audio = video_embeddings(syncnet, frames), audio_embeddings(syncnet, samples)
    seen = min(len(video), count)  # the committed file has the first frames only
    assert_near(video[:seen], golden["video_emb"][:seen])
    assert_near(audio[:count], golden["audio_emb"])
    if len(frames) > count:
        alignment = align_crops(syncnet, frames, samples, len(frames))
    else:
        alignment = align_embeddings(torch.from_numpy(golden["video_emb"]), audio[:count])
    assert_near(alignment.distances, golden["dists"])
    assert_near(alignment.distances.mean(axis=0), golden["mean_dist"])
    assert alignment.offset == golden["offset"]
    assert_near([alignment.confidence], golden["confidence"])
    assert_near([alignment.min_distance], golden["min_dist"])


@pytest.mark.parametrize("path", goldens("eval_sync_distance.safetensors"))
def test_distances_of_stored_embeddings(path: Path) -> None:
    golden, _ = read(path)
    for case in sorted({name[0] for name in golden}):
        one = {name[2:]: tensor for name, tensor in golden.items() if name[0] == case}
        video, audio = torch.from_numpy(one["video"]), torch.from_numpy(one["audio"])
        alignment = align_embeddings(video, audio, int(one["vshift"][0]))
        assert_near(alignment.distances, one["dists"])
        assert_near(alignment.distances.mean(axis=0), one["mean_dist"])
        assert alignment.offset == one["offset"]
        assert_near([alignment.confidence], one["confidence"])
        assert_near([alignment.min_distance], one["min_dist"])


@pytest.mark.parametrize("k", [-15, -7, -1, 0, 1, 4, 12, 15])
def test_sound_that_comes_k_frames_early_has_offset_k(k: int) -> None:
    generator = torch.Generator().manual_seed(k + 15)
    moments = torch.randn(130, 1024, generator=generator)
    noise = torch.randn(100, 1024, generator=generator)
    video, audio = moments[15:115], moments[15 + k : 115 + k]  # audio_i = video_{i+k}
    alignment = align_embeddings(video, audio + 0.5 * noise)
    assert alignment.offset == k
    assert alignment.confidence > 10
    assert align_embeddings(video, noise).confidence < 2


def test_windows_run_on_across_batches() -> None:
    frames = [np.full(1, i, np.uint8) for i in range(43)]
    windows = [
        [int(frame[0]) for frame in run[i : i + 5]]
        for run in overlapping_runs(frames)
        for i in range(len(run) - 4)
    ]
    assert windows == [list(range(i, i + 5)) for i in range(39)]


@pytest.mark.parametrize("path", goldens("eval_face_track.safetensors"))
def test_face_track(path: Path) -> None:
    golden, settings = read(path)
    rows, count = golden["detections"], len(golden["track_frames"])
    detections = [rows[rows[:, 0] == frame, 1:] for frame in range(count)]
    tracks = link_tracks(detections, [0] * count)
    track = longest_track(tracks, int(settings["min_track"]), float(settings["min_face_size"]))
    assert track.start == golden["track_frames"][0]
    assert_near(track.boxes, golden["track_bbox"], 1e-9)
    squares = face_track.steady_squares(track)
    for column, name in enumerate(("smooth_x", "smooth_y", "smooth_s")):
        assert_near(squares[:, column], golden[name], 1e-9)
    frames = dict(zip(golden["crop_index"], golden["frames_rgb"], strict=False))
    if len(golden["frames_rgb"]) == count:  # the committed file has only the cropped frames
        frames = dict(enumerate(golden["frames_rgb"]))
    for index, expected in zip(golden["crop_index"], golden["crops_rgb"], strict=True):
        crop = face_track.crop_face(frames[index], *squares[index])
        assert np.abs(crop.astype(int) - expected).max() <= 1


def box(x: float, y: float = 0, size: float = 120) -> NDArray[np.float64]:
    return np.array([x, y, x + size, y + size], np.float64)


def test_two_faces_are_two_tracks_whatever_their_order() -> None:
    detections = [np.stack([box(10 + t), box(400 - t)][:: 1 if t % 3 else -1]) for t in range(60)]
    left, right = sorted(link_tracks(detections, [0] * 60), key=lambda t: t.boxes[0, 0])
    np.testing.assert_array_equal(left.boxes[:, 0], 10 + np.arange(60))
    np.testing.assert_array_equal(right.boxes[:, 0], 400 - np.arange(60))


@pytest.mark.parametrize(("missing", "tracks"), [(24, 1), (25, 2)])
def test_a_short_gap_is_filled_and_a_long_one_ends_the_track(missing: int, tracks: int) -> None:
    none = np.empty((0, 4))
    detections = [box(10)[None]] * 3 + [none] * missing + [box(36)[None]]
    linked = link_tracks(detections, [0] * len(detections))
    assert len(linked) == tracks
    if tracks == 1:
        assert linked[0].boxes[3, 0] == pytest.approx(10 + 26 / (missing + 1))
        assert linked[0].num_detections == 4


def test_a_cut_ends_the_track_of_a_face_that_stays_in_place() -> None:
    dark, light = np.zeros((2, 8, 8, 3), np.uint8) + np.array([[[[0]]], [[[200]]]], np.uint8)
    is_cut = CutDetector()
    shots = np.cumsum([is_cut(frame) for frame in [dark] * 20 + [light] * 20]).tolist()
    assert shots == [0] * 20 + [1] * 20
    assert [len(t.boxes) for t in link_tracks([box(5)[None]] * 40, shots)] == [20, 20]


@pytest.mark.parametrize(
    ("detections", "reason"),
    [
        ([np.empty((0, 4))] * 80, "no face"),
        ([box(0)[None]] * 50, "50 frames only, 51 are needed"),
        ([box(0, size=80)[None]] * 51, "80 pixels"),
    ],
)
def test_a_clip_without_a_track_says_why(
    detections: list[NDArray[np.float64]], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        longest_track(link_tracks(detections, [0] * len(detections)))


def test_a_face_half_outside_the_frame_is_cropped_with_grey() -> None:
    crop = face_track.crop_face(np.full((200, 200, 3), 255, np.uint8), x=0, y=100, half=50)
    assert crop.shape == (224, 224, 3)
    assert (crop[:, :110] == 110).all()
    assert (crop[:, 114:] == 255).all()


@pytest.mark.parametrize("path", goldens("eval_s3fd.safetensors"))
def test_s3fd(path: Path) -> None:
    golden, settings = read(path)
    image = torch.from_numpy(golden["image_rgb"]).float() - torch.tensor(MEAN_RGB)
    for suffix, gain in (("", 1.0), ("_g", float(settings["gain_g"]))):
        network = by_rule(S3FD, "s3fd.json", gain)
        with torch.inference_mode():
            offsets, probabilities, anchors = network(image.permute(2, 0, 1)[None])
        assert_near(offsets[0], golden["loc" + suffix])
        assert_near(probabilities[0], golden["prob" + suffix])
        assert_near(anchors, golden["priors"])
    loc = torch.from_numpy(golden["loc_g"])
    assert_near(decode_boxes(loc, torch.from_numpy(golden["priors"])), golden["decoded_g"])
    for percent in (10, 30):
        kept = suppress(golden["nms_boxes"], golden["nms_scores"], percent / 100)
        np.testing.assert_array_equal(kept, golden[f"nms_keep_{percent:03}"])


@pytest.fixture(scope="module")
def networks() -> SyncNetworks:
    counted = state_by_rule(key_table("syncnet.json"))
    state = {n: t for n, t in counted.items() if not n.endswith("num_batches_tracked")}
    return SyncNetworks.load(red_detector(), state)


class Clip:
    """Frames made anew on each iteration: black ones, then `count` with a face to be seen."""

    def __init__(self, dark: int, count: int) -> None:
        self.dark, self.count = dark, count

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        rng = np.random.default_rng(5)
        black = np.zeros((256, 256, 3), np.uint8)
        picture = np.repeat(rng.integers(20, 236, (32, 256, 3), np.uint8), 8, axis=0)
        yield from [black] * self.dark
        for _ in range(self.count):  # less change than a cut
            yield picture + rng.integers(0, 20, picture.shape, np.uint8)


def test_boxes_are_in_the_frames_own_pixels(networks: SyncNetworks) -> None:
    without, face = detect_faces(networks.detector, list(Clip(1, 1)))
    assert without.shape == (0, 4)
    np.testing.assert_allclose(face, [[51.2, 51.2, 204.8, 204.8]], rtol=1e-5)


def speech(frames: int, seed: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, 640 * frames).astype(np.float32)


def test_a_clip_without_a_face_is_refused(networks: SyncNetworks) -> None:
    with pytest.raises(InputError, match="no face"):
        sync_score(Clip(dark=3, count=0), speech(3), networks)


@pytest.mark.slow
def test_only_the_sound_of_the_track_is_compared(networks: SyncNetworks) -> None:
    plain = sync_score(Clip(0, 55), speech(55), networks)
    assert (plain.frames, plain.coverage) == (range(55), 1)
    assert plain.alignment.distances.shape == (50, 31)
    later = np.concatenate((speech(5, seed=7), speech(55), speech(9, seed=8)))
    score = sync_score(iter(Clip(5, 55)), later, networks)
    assert (score.frames, score.coverage) == (range(5, 60), 55 / 60)
    assert_near(score.alignment.distances, plain.alignment.distances, 1e-5)
    with pytest.raises(InputError, match="heard for 45 frames"):
        sync_score(Clip(5, 55), later[: 50 * 640], networks)


Talker = tuple[list[NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def talker() -> Talker:
    """Five seconds of a person talking, with the sound of the file."""
    path = Path(os.environ["MODA_MEDIA"]) / "video" / "talker_25fps.mp4"
    return list(read_video(path, duration_s=5)), read_audio(path)[: 5 * 16000]


@pytest.fixture(scope="module")
def released() -> SyncNetworks:
    paths = require("s3fd", "syncnet")
    return SyncNetworks.load(load_file(paths["s3fd"]), load_file(paths["syncnet"]))


@pytest.mark.media
@pytest.mark.weights
@pytest.mark.parametrize("shift", [-5, -1, 1, 5])
def test_shifted_sound_shifts_the_offset(
    released: SyncNetworks, talker: Talker, shift: int
) -> None:
    frames, wave = talker
    plain = sync_score(frames, wave, released).alignment
    early = sync_score(frames, np.roll(wave, -640 * shift), released).alignment
    assert early.offset == plain.offset + shift
    assert early.min_distance == pytest.approx(plain.min_distance, rel=0.1)


@pytest.mark.media
@pytest.mark.weights
def test_spoilt_clips_are_less_in_sync(released: SyncNetworks, talker: Talker) -> None:
    frames, wave = talker
    plain = sync_score(frames, wave, released).alignment
    other = read_audio(Path(os.environ["MODA_MEDIA"]) / "audio" / "speech_6.wav")[: len(wave)]
    spoilt = {
        "another speech": (frames, other),
        "blurred": ([np.asarray(cv2.GaussianBlur(f, (0, 0), 12), np.uint8) for f in frames], wave),
        "every fifth frame": ([frames[i - i % 5] for i in range(len(frames))], wave),
    }
    for name, (pictures, sound) in spoilt.items():
        alignment = sync_score(pictures, sound, released).alignment
        assert alignment.confidence < plain.confidence, name
        assert alignment.min_distance > plain.min_distance, name
