"""A face for a LiveKit agent: the video generator of its `AvatarRunner`.

    session = moda.Pipeline.load().live("me.png", size=512)
    face = FaceGenerator(session, 512, 512)
    runner = AvatarRunner(room, audio_recv=..., video_gen=face, options=face.options)

`audio_recv` is QueueAudioOutput within the agent's own process, DataStreamAudioReceiver in a worker
of its own. Run with livekit-agents 1.8.
"""

import asyncio
from collections.abc import AsyncIterator

import cv2
import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.live.face import LiveFrame
from moda_cli.live.session import LiveSession


class FaceGenerator(VideoGenerator):
    """Takes an agent's speech and gives pictures, and the speech back in step with them.

    Pictures come all of the time, sound from the beginning of an utterance to its end.
    """

    def __init__(self, session: LiveSession, width: int, height: int) -> None:
        self._session = session
        self.options = AvatarOptions(
            video_width=width,
            video_height=height,
            video_fps=FPS,
            audio_sample_rate=SAMPLE_RATE,
            audio_channels=1,
        )
        # of an utterance some came, some was heard, all came
        self._begun = self._heard = self._ending = False

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        if isinstance(frame, AudioSegmentEnd):
            self._ending = True
            return
        self._begun = True
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
        wave = samples.astype(np.float32) / 32768
        await asyncio.to_thread(self._session.push, wave, frame.sample_rate)

    async def clear_buffer(self) -> None:
        await asyncio.to_thread(self._session.interrupt)
        self._begun = self._heard = self._ending = False

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        frames = self._session.frames()
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            if frame.drawn:
                yield self._picture(frame)
            self._heard = self._heard or (self._begun and bool(frame.sound.any()))
            if self._heard:
                samples = (np.clip(frame.sound, -1, 1) * 32767).astype(np.int16)
                yield rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, len(samples))
            if self._ending and not self._session.pace.speaking:
                self._begun = self._heard = self._ending = False
                yield AudioSegmentEnd()

    def _picture(self, frame: LiveFrame) -> rtc.VideoFrame:
        height, width = frame.picture.shape[:2]
        rgba = cv2.cvtColor(frame.picture, cv2.COLOR_RGB2RGBA)
        return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, rgba.tobytes())
