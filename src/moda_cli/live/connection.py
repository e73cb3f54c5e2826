"""One client of `moda serve`: its session, its limits, and what reaches it in time."""

import asyncio
import logging
import socket as sockets
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from moda_cli.errors import ModaError
from moda_cli.live import messages
from moda_cli.live.counts import Counts
from moda_cli.live.messages import Ask, Fault, Format, Interrupt
from moda_cli.live.session import LiveSession

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0  # a client that does not answer for half as long is gone
MAX_MESSAGE = 1_000_000  # bytes of one
MAX_WAITING_S = 60.0  # of sound that is not yet spoken
MAX_FAULTS = 20  # messages that cannot be read; then the session ends
MAX_PER_S = 200  # messages, of any kind
UNSENT = 3  # messages on their way; while there are as many, pictures are left out
TOO_SLOW = 250  # frames on their way, 10 s of sound: the session ends
BUFFERED = 64 * 1024  # bytes that the system may hold for a client: what is in them comes late
PACE_S = 1.0  # from one message of it to the next
GOODBYE_S = 1.0  # for a client to hear why


class Connection:
    """A client and its session, until either ends."""

    def __init__(
        self, socket: web.WebSocketResponse, session: LiveSession, counts: Counts, most_s: float
    ) -> None:
        """most_s: seconds that the session may last."""
        self._socket, self._session, self._counts, self._most_s = socket, session, counts, most_s
        self._loop = asyncio.get_running_loop()
        self._format: Format | None = None
        self._unsent: deque[str | bytes] = deque()
        self._filled = asyncio.Event()
        self._reason: asyncio.Future[str] = self._loop.create_future()
        self._faults = self._left_out = self._skipped = self._messages = 0
        self._second = 0.0

    def end(self, reason: str) -> None:
        """Let the session end soon; the first reason is told to the client."""
        if not self._reason.done():
            self._reason.set_result(reason)

    async def serve(self) -> None:
        """Talk until the client goes, the time is over, or `end` is called; free the session."""
        pump = threading.Thread(target=self._pump, name="moda-pump", daemon=True)
        tasks = [asyncio.create_task(each()) for each in (self._receive, self._send, self._tell)]
        pump.start()
        try:
            waited: set[asyncio.Future[Any]] = {*tasks, self._reason}
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(waited, timeout=self._most_s, return_when=first)
            self.end(f"a session lasts {self._most_s:g} s at most" if not self._gone(tasks) else "")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.to_thread(self._session.close)
            self._count_left_out()
        await self._say_goodbye(self._reason.result())

    def _gone(self, tasks: list[asyncio.Task[None]]) -> bool:
        """Whether the client has left; what else ended a task is our fault, and is logged."""
        ended = [task for task in tasks if task.done()]
        for task in ended:
            error = task.exception()
            if error and not isinstance(error, ConnectionError):
                log.error("a session failed", exc_info=error)
        return bool(ended)

    async def _say_goodbye(self, reason: str) -> None:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                if reason and not self._socket.closed:
                    await self._socket.send_str(messages.end(reason))
                await self._socket.close(code=WSCloseCode.OK)

    def _pump(self) -> None:
        """Frames to the event loop, in a thread of their own, as they are due."""
        try:
            for frame in self._session.frames():
                crowded = len(self._unsent) >= UNSENT
                picture = messages.jpeg(frame) if frame.drawn and not crowded else b""
                skipped = frame.drawn and crowded
                message = messages.frame_message(frame, picture)
                self._loop.call_soon_threadsafe(self._take_frame, message, skipped)
        except Exception as error:
            log.exception("a session failed")
            reason = str(error) if isinstance(error, ModaError) else "the session failed"
            with suppress(RuntimeError):  # of a loop that has ended
                self._loop.call_soon_threadsafe(self.end, reason)

    def _take_frame(self, message: bytes, skipped: bool) -> None:
        self._counts.frames += 1
        self._skipped += skipped
        self._counts.left_out["client"] += skipped
        self.say(message)
        if len(self._unsent) > TOO_SLOW:
            self.end("the sound cannot be sent as fast as it is spoken")

    def say(self, message: str | bytes) -> None:
        """Send this after all that waits to be sent."""
        self._unsent.append(message)
        self._filled.set()

    async def _send(self) -> None:
        while True:
            while not self._unsent:
                self._filled.clear()
                await self._filled.wait()
            message = self._unsent[0]
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
            self._unsent.popleft()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(PACE_S)
            self._count_left_out()
            if len(self._unsent) < UNSENT:
                self.say(messages.pace(self._session.pace, self._skipped))

    def _count_left_out(self) -> None:
        left_out = self._session.pace.left_out
        self._counts.left_out["machine"] += left_out - self._left_out
        self._left_out = left_out

    async def _receive(self) -> None:
        async for message in self._socket:
            try:
                self._check_rate()
                if message.type is WSMsgType.TEXT:
                    await self._obey(message.data)
                elif message.type is WSMsgType.BINARY:
                    await self._hear(message.data)
            except ModaError as fault:
                self._faults += 1
                self._counts.faults += 1
                self.say(messages.error(str(fault), fault.hint))
                if self._faults >= MAX_FAULTS:
                    self.end(f"{MAX_FAULTS} messages could not be read")
                    return

    def _check_rate(self) -> None:
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._messages = now, 0
        self._messages += 1
        if self._messages > MAX_PER_S:
            raise Fault(f"more than {MAX_PER_S} messages a second", hint="send longer blocks")

    async def _obey(self, text: str) -> None:
        match messages.parse(text):
            case Format() as described:
                self._format = described
            case Interrupt():
                await asyncio.to_thread(self._session.interrupt)
            case Ask(emotion, tracks, ease):
                self._session.ask(emotion, ease, **tracks)

    async def _hear(self, data: bytes) -> None:
        if self._format is None:
            hint = '{"type": "sound", "rate": 24000, "format": "int16"} comes before it'
            raise Fault("sound came without a description", hint=hint)
        wave = self._format.wave(data)
        seconds = len(wave) / self._format.rate
        if self._session.pace.waiting_s + seconds > MAX_WAITING_S:
            hint = "send it as it is spoken"
            raise Fault(f"more than {MAX_WAITING_S:g} s of sound would wait", hint=hint)
        self._counts.heard_s += seconds
        if len(wave):
            await asyncio.to_thread(self._session.push, wave, self._format.rate)


def keep_little(request: web.Request) -> None:
    """Have the system hold little for this client, so that a slow one is noticed at once."""
    transport = request.transport
    if transport is not None:
        transport.set_write_buffer_limits(high=BUFFERED // 2)
        if (socket := transport.get_extra_info("socket")) is not None:
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, BUFFERED)
