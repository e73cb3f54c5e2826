"""The page's first tab: portrait and speech in, a clip out."""

from pathlib import Path
from typing import Any

import gradio as gr

from moda_cli.config import ASPECTS
from moda_cli.ui import stage
from moda_cli.ui.actions import FEELINGS, Actions
from moda_cli.ui.wanted import Wanted

DEFAULT = Wanted()
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def as_file(given: Any) -> str | None:
    """The path of a picture as it was given: what is wrong with it we say ourselves."""
    return str(given.path) if given and given.path else None


def at_work(actions: Actions) -> dict[str, Any]:
    """What events have in common that keep the machine at work, whose line is its own."""
    most = actions.limits.waiting + 2  # the last of them hears that it is too many
    return {"concurrency_limit": most, "concurrency_id": "machine", "show_progress": "hidden"}


def make_tab(
    actions: Actions, token: gr.State, examples: tuple[Path, Path], models: list[str]
) -> dict[str, Any]:
    """Lay the tab out and wire it. Returns the parts that other tabs use."""
    portrait_file, speech_file = map(str, examples)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            portrait = gr.Image(
                value=portrait_file, type="filepath", image_mode=None, label="Portrait", height=280,
                sources=["upload", "webcam", "clipboard"], elem_id="portrait",
            )  # fmt: skip
            portrait.preprocess = as_file
            face_view = gr.Image(
                label="The face that is animated", interactive=False, visible=False, height=280,
                buttons=[], elem_id="face-view",
            )  # fmt: skip
            face_words = gr.Markdown(elem_id="face-words")
            face = gr.Dropdown(
                ["largest"], value=DEFAULT.face, label="Face, from the left", visible=False,
                allow_custom_value=True, elem_id="face",
            )  # fmt: skip
            speech = gr.Audio(
                value=speech_file, type="filepath", sources=["upload", "microphone"],
                label="Speech", elem_id="speech", buttons=[],
            )  # fmt: skip
            gr.Examples(
                [
                    [portrait_file, speech_file, "none"],
                    [portrait_file, speech_file, "happy"],
                    [portrait_file, speech_file, "sad"],
                ],
                [portrait, speech, emotion := gr.Dropdown(
                    FEELINGS, value=DEFAULT.emotion, label="Emotion", render=False,
                    elem_id="emotion",
                )],
                label="Examples",
            )  # fmt: skip
        with gr.Column(scale=1, min_width=320):
            emotion.render()
            intensity = gr.Slider(0, 1, DEFAULT.intensity, step=0.05, label="Intensity")
            head_motion = gr.Slider(0, 3, DEFAULT.head_motion, step=0.1, label="Head motion")
            with gr.Row():
                seed = gr.Number(
                    DEFAULT.seed, label="Seed", precision=0, minimum=0, min_width=120,
                    elem_id="seed",
                )  # fmt: skip
                model = gr.Dropdown(models, value=models[0], label="Model", min_width=120)
                aspect = gr.Dropdown(
                    [("the portrait's", ""), *ASPECTS], value=DEFAULT.aspect, label="Aspect",
                    min_width=120,
                )  # fmt: skip
            with gr.Accordion("More", open=False):
                timeline = gr.File(
                    label="Timeline (.toml, .json or .csv)", type="filepath", height=120,
                    file_types=[".toml", ".json", ".csv"],
                )  # fmt: skip
                size = gr.Number(
                    0, label="Longer side in pixels (0: the portrait's)", precision=0,
                    minimum=0, step=2, elem_id="size",
                )  # fmt: skip
                face_points = gr.Textbox(
                    DEFAULT.face_points,
                    label="Face points, for an animal or a puppet: xL,yL xR,yR xM,yM",
                    placeholder="left pupil, right pupil, mouth centre, in pixels",
                )
                force = gr.Checkbox(DEFAULT.force, label="Animate a doubtful face")
                mark = gr.Checkbox(DEFAULT.mark, label="Write “AI-generated” into the picture")
            with gr.Row():
                make = gr.Button("Make the clip", variant="primary", elem_id="make")
                cancel = gr.Button("Cancel", variant="stop", elem_id="cancel", interactive=False)
            view = gr.HTML(stage.nothing(), elem_id="stage", **stage.VIEW)
            with gr.Row():
                video = gr.DownloadButton("Save the video", interactive=False, elem_id="video")
                motion = gr.DownloadButton("Save the motion", interactive=False, elem_id="motion")
            clips = gr.Radio(
                [], label="Your clips, on this page only", elem_id="clips", interactive=True
            )
            with gr.Row():
                again = gr.Button("Make it again with another seed", size="sm", elem_id="again")
                reuse = gr.Button("Use these settings", size="sm", elem_id="reuse")

    files = [portrait, speech, timeline]
    fields = [
        emotion, intensity, head_motion, seed, model, aspect, size, face, face_points, force, mark
    ]  # fmt: skip
    saved = [video, motion]
    shown = [view, *saved]
    eyes = gr.State(())
    looked_at = [portrait, face, face_points, force]
    looks: dict[str, Any] = {
        "fn": actions.look, "inputs": looked_at, "outputs": [face_view, face, face_words, eyes],
        "concurrency_limit": 2, "concurrency_id": "look", "show_progress": "hidden",
    }  # fmt: skip
    portrait.change(lambda: DEFAULT.face, None, face, **PRIVATE).then(**looks, api_name="look")
    gr.on([face.input, face_points.submit, force.input], **looks, api_visibility="private")
    face_view.select(actions.click, eyes, face, **PRIVATE).then(**looks, api_visibility="private")

    def busy() -> tuple[Any, Any, Any]:
        return (*(gr.Button(interactive=False),) * 2, gr.Button(interactive=True))

    def idle() -> tuple[Any, Any, Any]:
        return (*(gr.Button(interactive=True),) * 2, gr.Button(interactive=False))

    def savable(*files: str | None) -> list[Any]:
        return [gr.DownloadButton(interactive=bool(file)) for file in files]

    buttons = [make, again, cancel]
    works = at_work(actions)
    for button, work, inputs, name in (
        (make, actions.make, [token, *files, *fields], {"api_name": "make"}),
        (again, actions.again, [token, clips], {"api_visibility": "private"}),
    ):
        begun = button.click(busy, None, buttons, queue=False, **PRIVATE)
        run = begun.then(work, inputs, shown, **works, **name)
        for ended in (run.success, run.failure):
            ended(idle, None, buttons, queue=False, **PRIVATE)
        run.success(actions.listed, token, clips, **PRIVATE)
        run.success(savable, saved, saved, **PRIVATE)
    cancel.click(actions.cancel, queue=False, api_name="cancel", show_progress="hidden")
    shows = clips.input(actions.show, [token, clips], shown, **PRIVATE)
    shows.success(savable, saved, saved, **PRIVATE)
    reuse.click(actions.reuse, [token, clips], [*files, *fields], **PRIVATE)
    return {"looks": looks, "clips": clips, "timeline": timeline, "speech": speech}
