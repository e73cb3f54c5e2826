"""A face for a Pipecat agent: `Pipeline([..., tts, FaceProcessor(begin), transport.output()])`.

`begin` begins a session, such as `lambda: pipeline.live("me.png", size=512)` of a
`moda.Pipeline.load()`. The transport needs `audio_out_enabled`, `video_out_enabled`, and
`video_out_width` and `video_out_height` of the session's pictures. Run with pipecat-ai 1.14.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    SpeechOutputAudioRawFrame,
    StartFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from moda_cli.config import SAMPLE_RATE
from moda_cli.live.face import LiveFrame
from moda_cli.live.session import LiveSession


class FaceProcessor(FrameProcessor):
    """Takes the sound that is to be played, and gives it back with a face that speaks it.

    All of the time: 25 pictures a second, each followed by the 40 ms of sound that it belongs to,
    which the transport plays in step.
    """

    def __init__(self, begin: Callable[[], LiveSession], **given: object) -> None:
        super().__init__(**given)
        self._begin = begin
        self._session: LiveSession | None = None
        self._showing: asyncio.Task[None] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputAudioRawFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._hear(frame)
            return
        if isinstance(frame, TTSStoppedFrame):
            return  # the transport hears by itself when the face falls silent, a little later
        if isinstance(frame, InterruptionFrame) and self._session:
            await asyncio.to_thread(self._session.interrupt)
        elif isinstance(frame, EndFrame):
            await self._finish()
        if isinstance(frame, EndFrame | CancelFrame):
            await self._stop()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._session = await asyncio.to_thread(self._begin)
            self._showing = self.create_task(self._show(self._session))

    async def cleanup(self) -> None:
        await self._stop()
        await super().cleanup()

    async def _hear(self, frame: OutputAudioRawFrame) -> None:
        samples = np.frombuffer(frame.audio, "<i2").reshape(-1, frame.num_channels)
        if self._session:
            wave = samples.astype(np.float32) / 32768
            await asyncio.to_thread(self._session.push, wave, frame.sample_rate)

    async def _show(self, session: LiveSession) -> None:
        frames = session.frames()
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            await self._show_one(frame)

    async def _show_one(self, frame: LiveFrame) -> None:
        if frame.drawn:
            height, width = frame.picture.shape[:2]
            picture = OutputImageRawFrame(frame.picture.tobytes(), (width, height), "RGB")
            picture.sync_with_audio = True
            await self.push_frame(picture)
        sound = (np.clip(frame.sound, -1, 1) * 32767).astype("<i2").tobytes()
        await self.push_frame(SpeechOutputAudioRawFrame(sound, SAMPLE_RATE, 1))

    async def _finish(self) -> None:
        """Let what waits be spoken."""
        session, showing = self._session, self._showing
        while session and showing and not showing.done() and session.pace.speaking:
            await asyncio.sleep(0.04)

    async def _stop(self) -> None:
        session, self._session = self._session, None
        if session:
            await asyncio.to_thread(session.close)
        if self._showing:
            with suppress(asyncio.CancelledError):
                await self.cancel_task(self._showing)
            self._showing = None
