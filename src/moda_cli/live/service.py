"""`moda serve`: a portrait that speaks with whoever connects, on one model.

Who may come is decided here, what is then said in connection. Needs aiohttp.
"""

import asyncio
import hmac
import re
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Handler

from moda_cli.errors import ModaError
from moda_cli.live import messages
from moda_cli.live.address import is_loopback
from moda_cli.live.connection import (
    HEARTBEAT_S,
    MAX_MESSAGE,
    MAX_WAITING_S,
    Connection,
    keep_little,
)
from moda_cli.live.counts import TYPE, Counts
from moda_cli.live.session import LiveSession
from moda_cli.live.speaker import Speaker

PAGE = Path(__file__).with_name("page.html").read_text("utf-8")
MICROPHONE = Path(__file__).with_name("microphone.js").read_text("utf-8")
SHUTDOWN_S = 3.0  # for all clients to hear that it ends
ROOM_S = 3.0  # for a session that has just been left to make room: a page is loaded again
OPEN = "/health"  # to anybody


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes upon itself."""

    sessions: int  # at once
    duration_s: float  # of one


def _hashes(tag: str) -> str:
    """What a policy lets run or style: the page's own parts, and nothing else."""
    parts = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    sums = (b64encode(sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{each}'" for each in sums)


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    f"script-src 'self' {_hashes('script')}; style-src {_hashes('style')}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # its address may hold the token
    "Cache-Control": "no-store",
    "Server": "moda",
}


class Service:
    """The page, the socket, health and metrics; sessions of one speaker, so many at once."""

    def __init__(self, speaker: Speaker, limits: Limits, host: str, token: str | None) -> None:
        """host: where it listens; token: what clients must have.

        Raises UsageError for a model whose windows are too short.
        """
        self._speaker, self._limits, self._host, self._token = speaker, limits, host, token
        self._counts = Counts()
        self._places = asyncio.Semaphore(limits.sessions)
        self._running = 0  # sessions, and those that are about to begin
        self._sessions: dict[Connection, LiveSession] = {}
        with speaker.session() as first:  # the next one need not wait for what is loaded late
            (frame,) = islice(first.frames(), 1)
        self._height, self._width = frame.picture.shape[:2]

    def application(self) -> web.Application:
        """What is served."""
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/", self._page)
        app.router.add_get("/microphone.js", self._microphone)
        app.router.add_get("/ws", self._talk)
        app.router.add_get(OPEN, self._health)
        app.router.add_get("/metrics", self._metrics)
        app.on_shutdown.append(self._end_all)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if refused := self._refused(request):
            reason, status, words = refused
            self._counts.refused[reason] += 1
            return web.Response(status=status, text=f"{words}\n")
        return await handler(request)

    def _refused(self, request: web.Request) -> tuple[str, int, str] | None:
        """Why a request is not answered: reason, status, words."""
        if self._token is None and not self._is_own(request.host):
            return "host", 403, "this server answers by the names of this machine only"
        origin = request.headers.get("Origin")
        if origin and urlsplit(origin).netloc.lower() != request.host.lower():
            return "origin", 403, "another site's page may not talk to this server"
        if self._token is not None and request.path != OPEN:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            given = given if scheme == "Bearer" else request.query.get("token", "")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return "token", 401, "the token is missing or wrong"
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a request was meant for this machine; a page elsewhere may have lent its name."""
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(name) or name == self._host

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _microphone(self, _: web.Request) -> web.Response:
        return web.Response(text=MICROPHONE, content_type="text/javascript")

    async def _health(self, _: web.Request) -> web.Response:
        said = {"status": "ok", "sessions": self._running, "most": self._limits.sessions}
        return web.json_response(said)

    async def _metrics(self, _: web.Request) -> web.Response:
        busy = max((session.pace.busy for session in self._sessions.values()), default=0.0)
        text = self._counts.text(self._running, self._limits.sessions, busy)
        return web.Response(body=text.encode(), headers={"Content-Type": TYPE})

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE, compress=False, timeout=1.0
        )
        await socket.prepare(request)
        keep_little(request)
        try:
            async with asyncio.timeout(ROOM_S):
                await self._places.acquire()
        except TimeoutError:
            self._counts.refused["full"] += 1
            most = f"{self._limits.sessions} sessions run, as many as may"
            await socket.send_str(messages.error(most, "try again later"))
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
            return socket
        self._running += 1
        try:
            await self._run(socket)
        finally:
            self._running -= 1
            self._places.release()
        return socket

    async def _run(self, socket: web.WebSocketResponse) -> None:
        try:
            session = await asyncio.to_thread(self._speaker.session)
        except ModaError as error:  # of memory
            await socket.send_str(messages.error(str(error)))
            await socket.close(code=WSCloseCode.INTERNAL_ERROR)
            return
        self._counts.sessions += 1
        limits = {
            "duration_s": self._limits.duration_s,
            "message_bytes": MAX_MESSAGE,
            "waiting_s": MAX_WAITING_S,
        }
        connection = Connection(socket, session, self._counts, self._limits.duration_s)
        connection.say(messages.hello(self._width, self._height, session.delay_s, limits))
        self._sessions[connection] = session
        try:
            await connection.serve()
        finally:
            del self._sessions[connection]

    async def _end_all(self, _: web.Application) -> None:
        for connection in self._sessions:
            connection.end("the server ends")


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@contextmanager
def serving(service: Service, listening: socket.socket) -> Iterator[None]:
    """Serve on a socket, in a thread, for as long as the block lasts."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(
        service.application(), access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=15
    )

    async def begin() -> None:
        await runner.setup()
        await web.SockSite(runner, listening).start()

    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, name="moda-serve", daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
