"""`moda serve` on a port of this machine: spoken with, abused, and left by real clients."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from typer.testing import CliRunner

from input_cases import EXAMPLES
from live_server import LiveServer, live_server
from moda_cli import media
from moda_cli.cli import app
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.errors import UsageError
from moda_cli.live.address import address, listen, needed_token
from moda_cli.live.messages import HEADER
from moda_cli.live.service import Limits, Service, serving
from moda_cli.live.speaker import Speaker
from moda_cli.pipeline import Pipeline

WAIT_S = 60.0
SOUND = {"type": "sound", "rate": 16_000, "format": "float32"}
TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("live")
    with live_server(folder, "--max-sessions", "2") as server:
        yield server


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("mini", "cpu")


@contextmanager
def served_here(pipeline: Pipeline, size: int = 64, **given: Any) -> Iterator[str]:
    """The address of a service in this process."""
    host, token = given.get("host", "127.0.0.1"), given.get("token")
    render, dash = RenderConfig(size=size), Path("-")
    speaker = Speaker(pipeline, ClipConfig(EXAMPLES / "portrait.png", dash, dash, render=render))
    service = Service(speaker, Limits(1, given.get("duration_s", 60)), host, token)
    with listen(host, None) as listening, serving(service, listening):
        yield address(listening, host, None)


class Client:
    """What a program would do: sound and messages out, frames and messages in."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []
        self.numbers: list[int] = []
        self.pictures: list[bytes] = []
        self.sound: list[np.ndarray] = []

    async def say(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def speak(self, wave: np.ndarray) -> None:
        await self.say(**SOUND)
        await self.socket.send_bytes(wave.astype("<f4").tobytes())

    async def until(self, true: Callable[[], bool]) -> None:
        """Take what comes until that is so. Raises TimeoutError, and EOFError at the end."""
        async with asyncio.timeout(WAIT_S):
            while not true():
                message = await self.socket.receive()
                if message.type is WSMsgType.TEXT:
                    self.told.append(json.loads(message.data))
                elif message.type is WSMsgType.BINARY:
                    self._take(message.data)
                else:
                    raise EOFError(self.told)

    def _take(self, data: bytes) -> None:
        number, milliseconds, samples = HEADER.unpack_from(data)
        assert milliseconds == 40 * number
        end = HEADER.size + 2 * samples
        self.numbers.append(number)
        self.sound.append(np.frombuffer(data[HEADER.size : end], "<i2") / 32767)
        if data[end:]:
            self.pictures.append(data[end:])

    def heard(self) -> np.ndarray:
        return np.concatenate([*self.sound, np.zeros(0)])

    def last(self, kind: str) -> dict[str, Any] | None:
        return next((said for said in reversed(self.told) if said["type"] == kind), None)

    async def fault(self) -> dict[str, Any]:
        """The next complaint; it is one line."""
        before = sum(said["type"] == "error" for said in self.told)
        await self.until(lambda: sum(said["type"] == "error" for said in self.told) > before)
        said = self.last("error")
        assert said
        assert "\n" not in said["message"] + said["hint"]
        return said


@asynccontextmanager
async def client(url: str, **given: Any) -> AsyncIterator[Client]:
    """One that was greeted."""
    async with ClientSession() as http, http.ws_connect(f"{url}ws", **given) as opened:
        it = Client(opened)
        await it.until(lambda: bool(it.told))
        yield it


def run(talk: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(talk(), 3 * WAIT_S))


async def get(url: str, path: str, **headers: str) -> tuple[int, str]:
    async with ClientSession() as http, http.get(url + path, headers=headers) as answer:
        return answer.status, await answer.text()


async def sessions(url: str) -> int:
    return int(json.loads((await get(url, "health"))[1])["sessions"])


async def free(url: str, count: int = 0) -> None:
    """Wait until no more than so many sessions run."""
    async with asyncio.timeout(WAIT_S):
        while await sessions(url) > count:
            await asyncio.sleep(0.05)


async def refused(url: str, path: str = "ws", **headers: str) -> int:
    async with ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(url + path, headers=headers)
    return caught.value.status


def speech(seconds: float) -> np.ndarray:
    return media.read_audio(EXAMPLES / "speech.wav")[: round(16_000 * seconds)]


def test_a_sentence_is_spoken_whole_with_a_moving_face(served: LiveServer) -> None:
    wave = speech(1.5)

    async def talk() -> None:
        async with client(served.url) as it:
            hello = it.told[0]
            assert (hello["type"], hello["version"]) == ("hello", 1)
            assert hello["picture"] == {"width": 64, "height": 64, "fps": 25}
            assert hello["sound"] == {"rate": 16_000, "channels": 1, "format": "int16"}
            assert 0.2 < hello["delay_s"] < 0.4
            await it.speak(wave)
            await it.until(lambda: len(it.numbers) >= 60 and it.last("pace") is not None)
            heard = it.heard()
            start = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(np.abs(wave) > 1 / 32767)[0])
            off = heard[start : start + len(wave)] - wave
            assert np.abs(off).max() < 2 / 32767
            first = it.numbers[0]
            assert it.numbers == list(range(first, first + len(it.numbers)))
            shown = [cv2.imdecode(np.frombuffer(p, np.uint8), 1) for p in it.pictures]
            assert {picture.shape for picture in shown} == {(64, 64, 3)}
            assert np.abs(shown[0].astype(int) - shown[-1]).max() > 10
            pace = it.last("pace")
            assert pace
            assert pace["shown"] > 0

    run(talk)


def test_an_interrupt_and_what_is_asked(served: LiveServer) -> None:
    async def talk() -> None:
        async with client(served.url) as it:
            await it.say(type="ask", emotion="happy@0.5", tracks={"yaw": 5}, ease=0.2)
            await it.speak(np.full(10 * 16_000, 0.1))
            await it.until(lambda: bool(it.sound) and it.sound[-1].any())
            await it.say(type="interrupt")
            await it.until(lambda: not it.sound[-1].any())
            before = len(it.sound)
            await it.until(lambda: len(it.sound) >= before + 25)
            assert not np.concatenate(it.sound[before:]).any()
            assert it.last("error") is None
            await it.say(type="ask", emotion="hapy")
            assert await it.fault() == {
                "type": "error",
                "message": "unknown emotion 'hapy'",
                "hint": "did you mean happy? it is one of anger, contempt, disgust, fear, happy,"
                " neutral, sad, surprise, none",
            }

    run(talk)


FAULTS: list[tuple[str | bytes, str]] = [
    ("{", "no JSON"),
    ("[" * 100_000, "no JSON"),
    ("[]", "no type"),
    ('{"type": 3}', "no type"),
    ('{"type": "interupt"}', "no message of type"),
    ('{"type": "interrupt", "now": true}', "takes no"),
    ('{"type": "sound", "rate": "16000"}', "needs a rate"),
    ('{"type": "sound", "rate": 1e400, "format": "int16"}', "needs a rate"),
    (f'{{"type": "sound", "rate": {10**400}, "format": "int16"}}', "needs a rate"),
    ('{"type": "sound", "rate": 16000, "channels": 0, "format": "int16"}', "channels"),
    ('{"type": "sound", "rate": 16000, "format": ["int16"]}', "needs a format"),
    ('{"type": "ask"}', "asks for nothing"),
    ('{"type": "ask", "emotion": {}}', "is a word"),
    ('{"type": "ask", "emotion": "happy@2"}', "not in 0-1"),
    ('{"type": "ask", "tracks": {"yaw": NaN}}', "numbers by name"),
    ('{"type": "ask", "tracks": {"self": 1}}', "no track 'self'"),
    ('{"type": "ask", "tracks": {"yaw": 400}}', "out of range"),
    ('{"type": "ask", "emotion": "sad", "ease": -1}', "ease"),
]


def test_what_is_malformed_is_answered_in_a_line_and_a_flood_of_it_ends(
    served: LiveServer,
) -> None:
    async def talk() -> None:
        async with client(served.url) as it:
            await it.socket.send_bytes(b"1234")
            assert "without a description" in (await it.fault())["message"]
            await it.say(**SOUND)
            await it.socket.send_bytes(b"123")
            assert "within a sample" in (await it.fault())["message"]
            for text, words in FAULTS[:-1]:
                assert isinstance(text, str)
                await it.socket.send_str(text)
                assert words in (await it.fault())["message"]
            await it.socket.send_str(FAULTS[-1][0])
            with pytest.raises(EOFError):
                await it.until(lambda: False)
            end = it.last("end")
            assert end
            assert "20 messages" in end["reason"]
        await free(served.url)  # on a slow machine a session takes its time to end
        async with client(served.url) as it:
            await it.socket.send_bytes(b"0" * 1_000_001)
            with pytest.raises(EOFError):
                await it.until(lambda: False)
            assert it.socket.close_code == 1009
        await free(served.url)
        async with client(served.url) as it:
            await it.speak(np.full(200_000, np.nan))
            for _ in range(4):
                await it.socket.send_bytes(bytes(960_000))
            assert "would wait" in (await it.fault())["message"]

    run(talk)


def test_two_speak_at_once_a_third_is_told_so_and_one_that_vanishes_makes_room(
    served: LiveServer,
) -> None:
    tones = [0.2 * np.sin(np.arange(16_000) * step) for step in (0.1, 0.3)]

    async def talk() -> None:
        await free(served.url)
        async with client(served.url) as one, client(served.url) as two:
            for it, tone in zip((one, two), tones, strict=True):
                await it.speak(tone)
            async with client(served.url) as three:
                assert "2 sessions run" in three.told[0]["message"]
                with pytest.raises(EOFError):
                    await three.until(lambda: False)
                assert three.socket.close_code == 1013
            both = (it.until(lambda it=it: len(it.numbers) >= 50) for it in (one, two))
            await asyncio.gather(*both)
            for it, tone in zip((one, two), tones, strict=True):
                heard = it.heard()
                start = int(np.flatnonzero(heard)[0]) - 1  # a tone begins with a zero
                assert np.abs(heard[start : start + 16_000] - tone).max() < 2 / 32767
            transport = one.socket._response.connection.transport  # type: ignore[union-attr]
            transport.abort()  # no farewell
            await free(served.url, 1)
            async with client(served.url) as three:
                assert three.told[0]["type"] == "hello"
                status, text = await get(served.url, "metrics")
                values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
                assert status == 200
                assert values["moda_live_sessions"] == "2"
                assert float(values["moda_live_frames_total"]) >= 100
                assert float(values["moda_live_busy_ratio"]) > 0
                assert int(values['moda_live_refused_total{reason="full"}']) >= 1

    run(talk)


def test_who_leaves_and_comes_again_at_once_is_let_in(pipeline: Pipeline) -> None:
    async def talk(url: str) -> None:
        for _ in range(3):
            async with client(url) as it:
                assert it.told[0]["type"] == "hello"

    with served_here(pipeline) as url:
        run(lambda: talk(url))


def small_socket(place: Any) -> socket.socket:
    """One whose system holds little for a reader that is slow."""
    opened = socket.socket(*place[:3])
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    return opened


def test_a_slow_client_gets_all_the_sound_and_fewer_pictures(pipeline: Pipeline) -> None:
    async def left_out(url: str) -> float:
        _, text = await get(url, "metrics")
        rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        return float(rows.get('moda_live_pictures_left_out_total{who="client"}', 0))

    async def talk(url: str) -> None:
        connector = aiohttp.TCPConnector(socket_factory=small_socket)
        async with ClientSession(connector=connector) as http, http.ws_connect(f"{url}ws") as ours:
            it = Client(ours)
            await it.until(lambda: len(it.numbers) >= 2)
            await it.speak(speech(1))
            transport = ours._response.connection.transport  # type: ignore[union-attr]
            transport.pause_reading()
            async with asyncio.timeout(WAIT_S):
                while await left_out(url) < 20:
                    await asyncio.sleep(0.1)
            transport.resume_reading()
            await it.until(lambda: it.heard().any() and not it.sound[-1].any())
            shown = len(it.pictures)
            await it.until(lambda: len(it.pictures) > shown)
        first = it.numbers[0]
        assert it.numbers == list(range(first, first + len(it.numbers)))
        assert len(it.numbers) - len(it.pictures) >= 20

    with served_here(pipeline, 512) as url:
        run(lambda: talk(url))


def test_who_may_come(pipeline: Pipeline, served: LiveServer) -> None:
    async def loopback() -> None:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            assert await refused(served.url, Origin=origin) == 403
        assert await refused(served.url, Host="evil.example") == 403  # whose name leads here
        async with client(served.url, headers={"Origin": served.url.rstrip("/")}) as it:
            assert it.told[0]["type"] == "hello"
        async with ClientSession() as http, http.get(served.url) as page:
            policy = page.headers["Content-Security-Policy"]
            assert page.status == 200
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
        assert (await get(served.url, "../../etc/passwd"))[0] == 404
        assert (await get(served.url, "ws"))[0] == 400

    async def beyond(url: str) -> None:
        assert (await get(url, "health"))[0] == 200
        for path in ("", "metrics", "microphone.js", "?token=wrong", f"metrics?token={TOKEN[:-1]}"):
            assert (await get(url, path))[0] == 401
        assert await refused(url, f"ws?token={TOKEN}x") == 401
        assert await refused(url, Authorization=TOKEN) == 401
        assert await refused(url, f"ws?token={TOKEN}", Origin="http://evil.example") == 403
        async with client(url, headers={"Authorization": f"Bearer {TOKEN}"}) as it:
            assert it.told[0]["type"] == "hello"
            with pytest.raises(EOFError):
                await it.until(lambda: False)
            end = it.last("end")
            assert end
            assert end["reason"] == "a session lasts 1 s at most"
        assert (await get(url, f"metrics?token={TOKEN}"))[0] == 200

    run(loopback)
    with served_here(pipeline, host="0.0.0.0", token=TOKEN, duration_s=1) as url:
        run(lambda: beyond(url))


def test_beyond_this_machine_a_token_is_needed_and_made() -> None:
    assert needed_token("127.0.0.1", None) is needed_token("::1", None) is None
    made = {needed_token(host, None) for host in ("0.0.0.0", "::", "192.168.1.2", "myhost")}
    assert len(made - {None}) == 4
    assert needed_token("0.0.0.0", TOKEN) == TOKEN
    for token in ("", "short", "with spaces \n in it", "ein Schlüssel für alle"):
        with pytest.raises(UsageError, match="--token"):
            needed_token("127.0.0.1", token)


def test_a_signal_ends_it_and_its_sessions(tmp_path: Path) -> None:
    async def talk(server: LiveServer) -> None:
        token = server.address.partition("?")[2]
        async with ClientSession() as http, http.ws_connect(f"{server.url}ws?{token}") as opened:
            it = Client(opened)
            await it.until(lambda: bool(it.numbers))
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(EOFError):
                await it.until(lambda: False)
            end = it.last("end")
            assert end
            assert end["reason"] == "the server ends"

    with live_server(tmp_path, "--host", "0.0.0.0", code=143) as server:
        assert len(server.address.partition("?token=")[2]) == 32
        run(lambda: talk(server))
        assert server.process.wait(WAIT_S) == 143


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["nobody.png"], 3, "nobody.png"),
        (["PORTRAIT", "--token", "short"], 2, "can be guessed"),
        (["PORTRAIT", "--emotion", "hapy"], 2, "did you mean happy?"),
        (["PORTRAIT", "--emotion", "auto"], 2, "whole sound"),
        (["PORTRAIT", "--port", "TAKEN"], 2, "cannot serve on 127.0.0.1, port"),
        (["PORTRAIT", "--host", "nowhere.invalid"], 2, "cannot serve on nowhere.invalid"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(options: list[str], code: int, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"PORTRAIT": str(EXAMPLES / "portrait.png"), "TAKEN": str(taken.getsockname()[1])}
        given = [known.get(option, option) for option in options]
        done = CliRunner().invoke(app, ["serve", *given, "-q"])
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2
