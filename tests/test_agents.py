"""Faces for Pipecat and LiveKit Agents, with stand-ins where those are not, and a camera's.

Where the real packages are installed each is driven as they drive it, through a transport of ours.
"""

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import moda_cli as moda
from moda_cli import media

EXAMPLES = Path(__file__).parents[1] / "examples"
WAIT_S = 60.0
FRAMES = """
from dataclasses import dataclass
from enum import Enum

class Frame: ...
class StartFrame(Frame): ...
class EndFrame(Frame): ...
class CancelFrame(Frame): ...
class InterruptionFrame(Frame): ...
class TTSStoppedFrame(Frame): ...
@dataclass
class OutputAudioRawFrame(Frame):
    audio: bytes
    sample_rate: int
    num_channels: int
class TTSAudioRawFrame(OutputAudioRawFrame): ...
class SpeechOutputAudioRawFrame(OutputAudioRawFrame): ...
@dataclass
class OutputImageRawFrame(Frame):
    image: bytes
    size: tuple
    format: str
    sync_with_audio = False
FrameDirection = Enum("FrameDirection", "DOWNSTREAM UPSTREAM")
"""
PROCESSOR = """
import asyncio
class FrameProcessor:
    def __init__(self):
        self.pushed = []
    async def process_frame(self, frame, direction): ...
    async def cleanup(self): ...
    async def push_frame(self, frame, direction=None):
        self.pushed.append(frame)
    def create_task(self, coroutine):
        return asyncio.ensure_future(coroutine)
    async def cancel_task(self, task):
        task.cancel()
        await asyncio.wait([task])
"""
AVATAR = """
from abc import ABC
from dataclasses import dataclass
class AudioSegmentEnd: ...
class VideoGenerator(ABC): ...
@dataclass
class AvatarOptions:
    video_width: int
    video_height: int
    video_fps: float
    audio_sample_rate: int
    audio_channels: int
class AudioFrame:
    def __init__(self, data, sample_rate, num_channels, samples_per_channel):
        self.data, self.sample_rate, self.num_channels = data, sample_rate, num_channels
class VideoFrame:
    def __init__(self, width, height, type, data):
        self.width, self.height, self.data = width, height, data
class VideoBufferType:
    RGBA = 0
"""


@pytest.fixture(scope="module")
def pipeline() -> moda.Pipeline:
    return moda.Pipeline.load("mini", device="cpu")


def speech() -> np.ndarray:
    """1.2 s that begins and ends with a sound."""
    wave = media.read_audio(EXAMPLES / "speech.wav")[3200:22_400]
    return np.where(wave.astype("<i2") == 0, 0.01, wave)


def pcm(wave: np.ndarray) -> bytes:
    return (wave * 32767).astype("<i2").tobytes()


def stood_in(patch: pytest.MonkeyPatch, names: list[str], code: str) -> ModuleType:
    """A module of that code, under all of these names, where the real one is not."""
    module = ModuleType(names[0])
    exec(code, module.__dict__)
    for name in names:
        patch.setitem(sys.modules, name, module)
    return module


def example(patch: pytest.MonkeyPatch, name: str) -> Any:
    patch.syspath_prepend(EXAMPLES)
    patch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


async def until(true: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.02)


def heard(sounds: list[bytes], wave: np.ndarray) -> bool:
    """Whether that was played, whole and without a gap."""
    played = np.frombuffer(b"".join(sounds), "<i2").astype(int)
    spoken = np.frombuffer(pcm(wave), "<i2").astype(int)
    loud = np.flatnonzero(played)
    if len(loud) == 0 or len(played) < loud[0] + len(spoken):
        return False
    return bool(np.abs(played[loud[0] :][: len(spoken)] - spoken).max() <= 2)


def is_loud(sound: bytes) -> bool:
    """Of the tone, not of the end of the speech before it."""
    return bool(np.frombuffer(sound, "<i2")[-1] > 3000)


def test_pipecat_is_given_pictures_and_sound_in_step(
    pipeline: moda.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["pipecat", "pipecat.frames", "pipecat.frames.frames"]
    frames = stood_in(monkeypatch, names, FRAMES)
    names = ["pipecat.processors", "pipecat.processors.frame_processor"]
    processing = stood_in(monkeypatch, names, PROCESSOR)
    processing.FrameDirection = frames.FrameDirection
    face = example(monkeypatch, "pipecat_face").FaceProcessor(
        lambda: pipeline.live(EXAMPLES / "portrait.png", size=64)
    )
    down = frames.FrameDirection.DOWNSTREAM
    wave = speech()

    def sounds() -> list[bytes]:
        kind = frames.SpeechOutputAudioRawFrame
        return [frame.audio for frame in face.pushed if type(frame) is kind]

    async def talk() -> None:
        await face.process_frame(frames.StartFrame(), down)
        await face.process_frame(frames.TTSAudioRawFrame(pcm(wave), 16_000, 1), down)
        await face.process_frame(frames.TTSStoppedFrame(), down)
        await until(lambda: heard(sounds(), wave))
        long = np.full(160_000, 0.1, np.float32)
        await face.process_frame(frames.TTSAudioRawFrame(pcm(long), 16_000, 1), down)
        await until(lambda: is_loud(sounds()[-1]))
        await face.process_frame(frames.InterruptionFrame(), down)
        await until(lambda: not any(sounds()[-1]))
        await face.process_frame(frames.TTSAudioRawFrame(pcm(wave[:8000]), 16_000, 1), down)
        said = len(sounds())
        await face.process_frame(frames.EndFrame(), down)  # not before that is spoken
        assert heard(sounds()[said:], wave[:8000])
        await face.cleanup()

    asyncio.run(talk())
    assert type(face.pushed[0]) is frames.StartFrame
    assert type(face.pushed[-1]) is frames.EndFrame
    kinds = {type(frame).__name__ for frame in face.pushed[1:-1]}
    assert kinds == {"OutputImageRawFrame", "SpeechOutputAudioRawFrame", "InterruptionFrame"}
    shown = [frame for frame in face.pushed if isinstance(frame, frames.OutputImageRawFrame)]
    assert {(len(f.image), f.size, f.format, f.sync_with_audio) for f in shown} == {
        (64 * 64 * 3, (64, 64), "RGB", True)
    }


def test_the_real_pipecat_runs_it(pipeline: moda.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pipecat")
    from pipecat.frames import frames
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.transports.base_output import BaseOutputTransport
    from pipecat.transports.base_transport import TransportParams
    from pipecat.workers.runner import WorkerRunner

    wave = speech()
    played: list[tuple[float, bytes]] = []
    shown: list[bytes] = []

    class Output(BaseOutputTransport):
        async def start(self, frame: frames.StartFrame) -> None:
            await super().start(frame)
            await self.set_transport_ready(frame)

        async def write_audio_frame(self, frame: frames.OutputAudioRawFrame) -> bool:
            await asyncio.sleep(len(frame.audio) / 2 / frame.sample_rate)  # as a line would
            played.append((asyncio.get_running_loop().time(), frame.audio))
            return True

        async def write_video_frame(self, frame: frames.OutputImageRawFrame) -> bool:
            shown.append(frame.image)
            return True

    face = example(monkeypatch, "pipecat_face").FaceProcessor(
        lambda: pipeline.live(EXAMPLES / "portrait.png", size=64)
    )
    given = TransportParams(
        audio_out_enabled=True,
        audio_out_sample_rate=16_000,
        video_out_enabled=True,
        video_out_width=64,
        video_out_height=64,
        video_out_framerate=25,
    )
    worker = PipelineWorker(
        Pipeline([face, Output(given)]),
        params=PipelineParams(audio_out_sample_rate=16_000),
        cancel_on_idle_timeout=False,
    )

    async def speak() -> None:
        await until(lambda: len(played) > 5)
        await worker.queue_frame(frames.TTSAudioRawFrame(pcm(wave), 16_000, 1))
        await until(lambda: heard([sound for _, sound in played], wave))
        long = np.full(160_000, 0.1, np.float32)
        await worker.queue_frame(frames.TTSAudioRawFrame(pcm(long), 16_000, 1))
        await until(lambda: is_loud(played[-1][1]))
        await worker.queue_frame(frames.InterruptionFrame())
        await until(lambda: not any(played[-1][1]))
        before = len(played)
        await until(lambda: len(played) > before + 25)
        assert not any(any(sound) for _, sound in played[before:])
        await worker.queue_frame(frames.EndFrame())

    async def both() -> None:
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        try:
            await speak()
        except BaseException:
            await worker.cancel()
            raise
        await asyncio.wait_for(running, WAIT_S)

    asyncio.run(both())
    assert len(set(shown)) > 6  # however busy it is here
    assert {len(picture) for picture in shown} == {64 * 64 * 3}


def test_livekit_is_given_utterances_with_their_ends(
    pipeline: moda.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["livekit.agents.voice.avatar", "livekit.rtc", "livekit", "livekit.agents"]
    kit = stood_in(monkeypatch, [*names, "livekit.agents.voice"], AVATAR)
    kit.rtc = kit
    wave = speech()
    given: list[Any] = []

    async def talk() -> None:
        with pipeline.live(EXAMPLES / "portrait.png", size=64) as session:
            face = example(monkeypatch, "livekit_face").FaceGenerator(session, 64, 64)

            async def taking() -> None:
                async for frame in face:
                    given.append(frame)

            def ends() -> int:
                return sum(isinstance(frame, kit.AudioSegmentEnd) for frame in given)

            taker = asyncio.ensure_future(taking())
            await until(lambda: len(given) > 5)
            assert all(isinstance(frame, kit.VideoFrame) for frame in given)
            await face.push_audio(kit.AudioFrame(pcm(wave), 16_000, 1, len(wave)))
            await face.push_audio(kit.AudioSegmentEnd())
            await until(lambda: ends() == 1)
            assert heard([f.data for f in given if isinstance(f, kit.AudioFrame)], wave)
            long = np.full(160_000, 0.1, np.float32)
            before = len(given)
            await face.push_audio(kit.AudioFrame(pcm(long), 16_000, 1, len(long)))
            await until(lambda: any(isinstance(f, kit.AudioFrame) for f in given[before:]))
            await face.clear_buffer()
            before = len(given) + 3
            await until(lambda: len(given) > before + 25)
            assert all(isinstance(frame, kit.VideoFrame) for frame in given[before:])
            session.close()
            await taker

    asyncio.run(talk())
    assert {len(frame.data) for frame in given if isinstance(frame, kit.VideoFrame)} == {
        64 * 64 * 4
    }


def test_the_real_livekit_runs_it(pipeline: moda.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("livekit.agents")
    from livekit import rtc
    from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

    wave = speech()
    pushed: list[Any] = []
    finished: list[Any] = []

    class Publication:
        async def wait_for_subscription(self) -> None: ...

    class Participant:
        async def publish_track(self, *_: Any) -> Publication:
            return Publication()

    room = SimpleNamespace(
        on=lambda *_: None,
        off=lambda *_: None,
        isconnected=lambda: True,
        local_participant=Participant(),
    )

    async def talk() -> None:
        with pipeline.live(EXAMPLES / "portrait.png", size=64) as session:
            face = example(monkeypatch, "livekit_face").FaceGenerator(session, 64, 64)
            output = QueueAudioOutput(sample_rate=16_000)
            output.on("playback_finished", finished.append)
            runner = AvatarRunner(room, audio_recv=output, video_gen=face, options=face.options)
            push = runner.av_sync.push

            async def watched(frame: Any, *more: Any) -> None:
                pushed.append(frame)
                await push(frame, *more)

            monkeypatch.setattr(runner.av_sync, "push", watched)
            await runner.start()
            sound = rtc.AudioFrame(pcm(wave), 16_000, 1, len(wave))
            await output.capture_frame(sound)
            output.flush()
            await until(lambda: len(finished) == 1)
            assert not finished[0].interrupted
            assert finished[0].playback_position == pytest.approx(len(wave) / 16_000, abs=0.3)
            sounds = [bytes(f.data) for f in pushed if isinstance(f, rtc.AudioFrame)]
            assert heard(sounds, wave)
            long = np.full(160_000, 0.1, np.float32)
            before = len(pushed)
            await output.capture_frame(rtc.AudioFrame(pcm(long), 16_000, 1, len(long)))
            await until(lambda: any(isinstance(f, rtc.AudioFrame) for f in pushed[before:]))
            output.clear_buffer()
            await until(lambda: len(finished) == 2)
            assert finished[1].interrupted
            before = len(pushed) + 3
            await until(lambda: len(pushed) > before + 25)
            assert all(isinstance(frame, rtc.VideoFrame) for frame in pushed[before:])
            session.close()
            await runner.aclose()

    asyncio.run(talk())
    shown = [frame for frame in pushed if isinstance(frame, rtc.VideoFrame)]
    assert {(frame.width, frame.height) for frame in shown} == {(64, 64)}


CAMERA = """
sent = []
class Camera:
    device = "/dev/video0"
    def __init__(self, width, height, fps):
        if no_device:
            raise RuntimeError("'v4l2loopback' backend: No v4l2 loopback device found")
        self.shape = (height, width, 3)
    def __enter__(self):
        return self
    def __exit__(self, *_): ...
    def send(self, picture):
        assert picture.shape == self.shape
        sent.append(picture)
"""


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example, asked to speak 0.6 s."""
    import soundfile

    wave, rate = soundfile.read(EXAMPLES / "speech.wav", dtype="float32")
    monkeypatch.setattr(soundfile, "read", lambda *_, **__: (wave[: int(0.6 * rate)], rate))
    given = [str(EXAMPLES / "portrait.png"), "speech.wav", "--size", "64"]
    monkeypatch.setattr(sys, "argv", ["virtual_camera.py", *given])
    return example(monkeypatch, "virtual_camera")


def test_a_camera_is_sent_what_is_spoken(camera: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = stood_in(monkeypatch, ["pyvirtualcam"], f"no_device = False\n{CAMERA}")
    camera.main()
    assert len(stand_in.sent) >= 15
    assert len({picture.tobytes() for picture in stand_in.sent}) > 3  # however busy it is here


def test_without_a_camera_it_says_so(camera: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stood_in(monkeypatch, ["pyvirtualcam"], f"no_device = True\n{CAMERA}")
    with pytest.raises(SystemExit, match=r"no virtual camera: .*\nhint: modprobe"):
        camera.main()
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(SystemExit, match="not here\nhint: pip install pyvirtualcam"):
        camera.main()


def test_the_camera_is_a_program() -> None:
    command = [sys.executable, str(EXAMPLES / "virtual_camera.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--play" in done.stdout
