"""What the buttons of the page do; programs call the same functions by their names."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from moda_cli.config import EMOTIONS
from moda_cli.errors import UsageError
from moda_cli.ui import stage
from moda_cli.ui.complaints import page_errors, told
from moda_cli.ui.face_choice import Seen, look
from moda_cli.ui.limits import Limits
from moda_cli.ui.machine import Cancelled, Machine
from moda_cli.ui.sessions import Made, Session, Sessions
from moda_cli.ui.wanted import Wanted

# what the stage shows, and the files of a finished clip: its video and its motion
Shown = tuple[dict[str, Any], str | None, str | None]
NO_CLIP = "make a clip first"


class Actions:
    """The buttons of the page's first tab."""

    def __init__(self, machine: Machine, sessions: Sessions, limits: Limits) -> None:
        self.machine, self.sessions, self.limits = machine, sessions, limits
        self.root = sessions.folder.parent  # of all that the server keeps

    def errors(self) -> Any:
        """The block in which errors become the page's."""
        return page_errors(self.root)

    def told(self, text: str) -> str:
        """A message as the page says it."""
        return told(text, self.root)

    def session(self, token: str, request: gr.Request) -> Session:
        """A visitor's session; a program without a token has one for as long as it is connected."""
        return self.sessions.of(token or str(request.session_hash))

    def enter(self, token: str | None) -> tuple[str, str]:
        """The visitor's token, for the browser to keep and for this tab."""
        token = token or secrets.token_urlsafe(24)
        return token, token

    def leave(self, request: gr.Request) -> None:
        """A tab was closed or loaded anew: what it was waiting for is given up."""
        self.sessions.stop(str(request.session_hash))

    def look(
        self,
        portrait: str | None,
        face: str = "largest",
        face_points: str = "",
        force: bool = False,
    ) -> tuple[Any, Any, str, tuple[Any, ...]]:
        """Draw the mesh of the face that would be animated.

        Returns the picture, the choice of faces, what is said of them, and where they are.
        """
        nothing = gr.Image(None, visible=False), gr.Dropdown(visible=False), "", ()
        if not portrait:
            return nothing
        with self.errors():
            self.limits.check_portrait(Path(portrait))
            seen = look(Path(portrait), face, (face_points or "").strip(), force)
        numbers = [str(number) for number in range(1, len(seen.eyes) + 1)]
        choice = gr.Dropdown(["largest", *numbers], value=face, visible=len(numbers) > 1)
        return gr.Image(seen.picture, visible=True), choice, seen.words, seen.eyes

    def click(self, eyes: tuple[Any, ...], event: gr.SelectData) -> str:
        """The face that was clicked, as `look` numbers them."""
        if not eyes:
            return "largest"
        return Seen(None, eyes, "").nearest(*event.index)  # type: ignore[arg-type]

    def make(
        self,
        token: str,
        request: gr.Request,
        portrait: str | None,
        speech: str | None,
        timeline: str | None = None,
        emotion: str = "none",
        intensity: float = 1,
        head_motion: float = 1,
        seed: int = 42,
        model: str = "auto",
        aspect: str = "",
        size: int | None = None,
        face: str = "largest",
        face_points: str = "",
        force: bool = False,
        mark: bool = False,
    ) -> Iterator[Shown]:
        """Make a clip. Yields what the stage shows, then also the video and its motion.

        emotion: one of EMOTIONS, or auto; intensity: 0 to 1, of it. face: largest, left, right or a
        number from the left.
        """
        given = {
            "emotion": emotion, "intensity": intensity, "head_motion": head_motion, "seed": seed,
            "model": model, "aspect": aspect, "size": size, "face": face,
            "face_points": face_points, "force": force, "mark": mark,
        }  # fmt: skip
        with self.errors():
            files = self._checked(portrait, speech, timeline)
            yield from self._making(token, files, Wanted.of(given), request)

    def _checked(
        self, portrait: str | None, speech: str | None, timeline: str | None
    ) -> tuple[Path, Path, Path | None]:
        """The files that a clip is made of, within the limits. Raises ModaError."""
        if not portrait:
            raise UsageError("there is no portrait", hint="drop a picture, or take the example")
        if not speech:
            raise UsageError("there is no speech", hint="drop or record a sound")
        self.limits.check_portrait(Path(portrait))
        self.limits.check_sound(Path(speech))
        if timeline:
            self.limits.check_timeline(Path(timeline))
        return Path(portrait), Path(speech), Path(timeline) if timeline else None

    def _making(
        self,
        token: str,
        files: tuple[Path, Path, Path | None],
        wanted: Wanted,
        request: gr.Request,
    ) -> Iterator[Shown]:
        session = self.session(token, request)
        number, folder = session.new_files(files[0].stem[:40])
        clip = wanted.clip(*files, folder)
        made = None
        try:
            with (
                self.sessions.stoppable(str(request.session_hash)) as stop,
                closing(self.machine.make(clip, wanted.model, stop)) as steps,
            ):
                result = None
                while result is None:
                    try:
                        yield stage.making(next(steps)), None, None
                    except StopIteration as end:
                        result = end.value
            motion = folder / "motion.safetensors"
            name = self.machine.load(wanted.model).name
            made = Made(number, wanted, *files, motion, result, name)
            session.keep(made)
            yield self._shown(made)
        except Cancelled:
            yield stage.nothing("Cancelled."), None, None
        except Exception:
            yield stage.nothing("Not made."), None, None
            raise
        finally:
            if made is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _shown(self, made: Made) -> Shown:
        """A clip on the stage, and its files to be saved."""
        result = made.result
        speed = f"in {result.seconds:.1f} s, {result.frames / result.seconds:.0f} frames/s"
        shown = stage.finished(result.output, f"{made.title}; by {made.model} {speed}")
        return shown, str(result.output), str(made.motion)

    def cancel(self, request: gr.Request) -> None:
        """End what is being made for this tab; the machine is free within a second."""
        self.sessions.stop(str(request.session_hash))

    def listed(self, token: str, request: gr.Request) -> Any:
        """The visitor's clips, the latest first and chosen."""
        clips = self.session(token, request).clips
        titles = [(clips[number].title, number) for number in sorted(clips, reverse=True)]
        return gr.Radio(choices=titles, value=titles[0][1] if titles else None)

    def chosen(self, token: str, number: int | None, request: gr.Request) -> Made:
        """One of the visitor's clips. Raises an error of Gradio's where there is none."""
        with self.errors():
            clips = self.session(token, request).clips
            if number not in clips:
                raise UsageError("there is no such clip", hint=NO_CLIP)
            return clips[int(number)]

    def show(self, token: str, number: int | None, request: gr.Request) -> Shown:
        """An earlier clip on the stage."""
        return self._shown(self.chosen(token, number, request))

    def reuse(self, token: str, number: int | None, request: gr.Request) -> list[Any]:
        """A clip's files and settings, for the fields."""
        made = self.chosen(token, number, request)
        files = [str(file) if file else None for file in (made.portrait, made.sound, made.timeline)]
        return [*files, *made.wanted.values().values()]

    def again(self, token: str, number: int | None, request: gr.Request) -> Iterator[Shown]:
        """A clip once more, with a seed of its own."""
        made = self.chosen(token, number, request)
        seed = secrets.randbelow(100_000)
        given = {**made.wanted.values(), "seed": seed}
        with self.errors():
            files = made.portrait, made.sound, made.timeline
            yield from self._making(token, files, Wanted.of(given), request)


FEELINGS = ["none", *(name for name in EMOTIONS if name != "none"), "auto"]
