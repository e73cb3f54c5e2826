"""What the server of the page keeps to itself, and what programs get from it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import pytest

from input_cases import EXAMPLES, speech, wav
from media_files import probe
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.errors import InputError, UsageError
from page_server import Served, short_speech

gradio = pytest.importorskip("gradio")
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def status(address: str) -> int:
    try:
        with urlopen(address) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_nothing_outside_its_folder_is_served(served: Served) -> None:
    address, folder = served.address, served.folder
    (root,) = folder.glob("moda-ui-*")
    (folder / "secret.txt").write_text("secret")
    own = next(root.rglob("portrait.png"))
    (root / "link.txt").symlink_to(folder / "secret.txt")
    served_from = f"{address}gradio_api/file="
    assert status(f"{served_from}{own}") == 200
    for path in (
        *("/etc/passwd", f"{folder}/secret.txt", f"{root}/../secret.txt", f"{root}/link.txt"),
        *(str(Path(__file__)), f"{EXAMPLES}/jobs.csv", "pyproject.toml", str(root)),
    ):
        for written in (path, quote(path, safe=""), path.replace("..", "%2e%2e"), f"/{path}"):
            assert status(f"{served_from}{written}") in (403, 404), written


def test_a_program_cannot_name_files_of_the_server(served: Served) -> None:
    address = served.address
    own = {"path": str(EXAMPLES / "portrait.png"), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [own, "largest", "", False]}).encode()
    request = Request(f"{address}gradio_api/call/look", body, {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urlopen(f"{address}gradio_api/call/look/{event}") as answer:
        assert b"event: error" in answer.read()


def test_the_example_of_a_program_makes_a_clip(served: Served, tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "ui_client.py"), served.address, "made.mp4"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Drawing frame" in done.stdout
    assert done.stdout.splitlines()[-1] == "made.mp4"
    told = probe(tmp_path / "made.mp4")
    assert "256x256" in told
    assert "AI-generated" in told


def test_a_sound_that_is_too_long_is_refused(served: Served, tmp_path: Path) -> None:
    from gradio_client import Client, exceptions, handle_file

    client = Client(served.address, verbose=False)
    long = tmp_path / "long.wav"
    long.write_bytes(wav(np.tile(speech(7), 2)))
    with pytest.raises(exceptions.AppError) as refused:
        client.predict(speech=handle_file(long), api_name="/make")
    assert "long.wav is longer than 12 s<br>cut it: 12 s are taken here" in str(refused.value)


def test_the_space_serves_the_page_and_leaves_nothing_behind(tmp_path: Path) -> None:
    space = EXAMPLES / "space"
    card = (space / "README.md").read_text("utf-8").split("---")[1]
    said = dict(line.split(": ", 1) for line in card.strip().splitlines())
    assert said["app_file"] == "app.py"
    assert said["license"] == "apache-2.0"
    assert said["sdk_version"] == version("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "GRADIO_SERVER_PORT": str(port)}
    command = [sys.executable, str(space / "app.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"http://localhost:{port}/\n"
            with urlopen(f"http://127.0.0.1:{port}/config") as answer:
                assert json.load(answer)["max_file_size"] == 10 * 2**20
            assert list(tmp_path.glob("moda-ui-*"))
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 143
    assert not list(tmp_path.glob("moda-ui-*"))


def test_a_taken_port_is_said_in_two_lines(served: Served) -> None:
    port = served.address.rstrip("/").rsplit(":", 1)[1]
    command = [sys.executable, "-m", "moda_cli", "ui", "--model", "mini", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: cannot serve on 127.0.0.1, port {port}: Address already in use",
        "hint: give another --port, or none",
    ]


def test_a_clip_that_is_stopped_or_left_alone_frees_the_machine_within_a_second(
    tmp_path: Path,
) -> None:
    from moda_cli.ui.machine import Cancelled, Machine

    machine = Machine("mini", "auto", "cpu", "auto")
    machine.load("auto")
    clip = ClipConfig(
        EXAMPLES / "portrait.png", EXAMPLES / "speech.wav", tmp_path / "out.mp4", overwrite=True
    )
    stop = threading.Event()
    steps = machine.make(clip, "auto", stop)
    while next(steps).phase != "drawing":
        pass
    began = time.monotonic()
    stop.set()
    with pytest.raises(Cancelled):
        list(steps)
    assert time.monotonic() - began < 1

    steps = machine.make(clip, "auto", threading.Event())
    while next(steps).phase != "drawing":
        pass
    steps.close()
    began = time.monotonic()
    small = ClipConfig(
        clip.portrait, short_speech(tmp_path / "speech.wav"), clip.output, overwrite=True,
        render=RenderConfig(size=64),
    )  # fmt: skip
    phases = [step.phase for step in machine.make(small, "auto", threading.Event())]
    assert phases[-1] == "drawing"
    assert time.monotonic() - began < 5

    machine.waiting = 1
    queue = [machine.make(small, "auto", threading.Event()) for _ in range(3)]
    assert [next(steps).phase for steps in queue[:2]]
    with pytest.raises(UsageError, match="1 clips wait for the machine already"):
        next(queue[2])
    queue[0].close()
    assert [step.phase for step in queue[1]][-1] == "drawing"
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["out.mp4"]


def test_a_job_list_reaches_for_nothing_but_what_was_dropped_with_it(tmp_path: Path) -> None:
    from moda_cli.ui.actions import Actions
    from moda_cli.ui.batch_tab import BatchActions
    from moda_cli.ui.limits import Limits
    from moda_cli.ui.machine import Machine
    from moda_cli.ui.sessions import Sessions

    limits = Limits(jobs=2)
    actions = Actions(Machine("mini", "auto", "cpu", "auto"), Sessions(tmp_path, limits), limits)
    batch = BatchActions(actions)

    def jobs(rows: str) -> list[str]:
        folder = actions.sessions.of("visitor").new_files("batch")[1]
        (tmp_path / "jobs.csv").write_text(rows)
        return [job.clip.output.name for job in batch._jobs([str(tmp_path / "jobs.csv")], folder)]

    assert jobs("portrait,audio\nme.png,a.wav\nme.png,a.wav\n") == [
        "01_me_a.mp4", "02_me_a.mp4",
    ]  # fmt: skip
    for rows in (
        "portrait,audio\n/etc/passwd,a.wav\n",
        "portrait,audio\n../me.png,a.wav\n",
        "portrait,audio\nhttps://example.org/me.png,a.wav\n",
        "portrait,audio,motion\nme.png,a.wav,../../m.safetensors\n",
        "portrait,audio,font\nme.png,a.wav,/usr/share/fonts/a.ttf\n",
        "portrait,audio,c2pa\nme.png,a.wav,\"/a.pem,/b.pem\"\n",
        "portrait,audio,output\nme.png,a.wav,../out.mp4\n",
        "portrait,audio,plot\nme.png,a.wav,/tmp/plot.png\n",
        "portrait,audio\n" + 3 * "me.png,a.wav\n",
    ):  # fmt: skip
        with pytest.raises(UsageError):
            jobs(rows)


def test_a_timeline_may_not_name_motion_files(tmp_path: Path) -> None:
    from moda_cli.ui.limits import Limits

    path = tmp_path / "t.toml"
    path.write_text('[[entry]]\nat = 1\n"mot\\u0069on" = "/etc/passwd"\n')
    with pytest.raises(InputError, match="motion files cannot be named here"):
        Limits().check_timeline(path)
    path.write_text('[[entry]]\nat = 1\nemotion = "happy"\n')
    Limits().check_timeline(path)


def test_a_visitor_keeps_so_many_clips(tmp_path: Path) -> None:
    from moda_cli.ui.limits import Limits
    from moda_cli.ui.sessions import Sessions

    session = Sessions(tmp_path, Limits(clips=2)).of("a visitor")
    for _ in range(3):
        number, folder = session.new_files("clip")
        session.keep(SimpleNamespace(number=number, motion=folder / "m"))  # type: ignore[arg-type]
    assert sorted(session.clips) == [2, 3]
    assert sorted(path.name for path in session.folder.iterdir()) == ["2-clip", "3-clip"]


def test_without_gradio_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['gradio'] = None; from moda_cli.cli import app; app(['ui'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the page needs Gradio, which is not here",
        "hint: pip install 'moda-cli[ui]'",
    ]
