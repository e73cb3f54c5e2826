"""A job list and its files in, a clip a job out, one after the other."""

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from moda_cli.config import INPUT_FILES, ClipConfig
from moda_cli.errors import ModaError, UsageError
from moda_cli.jobs.clip_list import Job, jobs_from_file
from moda_cli.ui import stage
from moda_cli.ui.actions import Actions
from moda_cli.ui.machine import Cancelled
from moda_cli.ui.make_tab import PRIVATE, at_work

LISTS = (".csv", ".tsv", ".jsonl")
NAMES = "{index:02d}_{portrait}_{audio}.mp4"  # unless the list names them
HEADERS = ["Job", "Clip", "State"]
HELP = (
    "Drop a job list (.csv, .tsv or .jsonl: a row a clip, with the columns `portrait` and `audio`"
    " and any option, such as `emotion` or `seed`) together with the files that it names."
)
EXAMPLE = "portrait,audio,emotion,seed\nme.png,speech.wav,happy,1\nme.png,speech.wav,sad,2"

Rows = list[list[str]]


class BatchActions:
    """What the tab's buttons do."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def make(
        self, token: str, request: gr.Request, files: list[str] | None
    ) -> Iterator[tuple[Rows, dict[str, Any], str | None]]:
        """Make every clip of a job list. Yields the table, the stage, and at the end all clips.

        files: the list and what it names. A job that fails is told in the table, and the others go
        on.
        """
        actions = self.actions
        session = actions.session(token, request)
        _, folder = session.new_files("batch")
        with (
            actions.errors(),
            actions.sessions.stoppable(str(request.session_hash)) as stop,
        ):
            jobs = self._jobs(files or [], folder)
            rows = [[job.origin, job.clip.output.name, "waiting"] for job in jobs]
            try:
                for job, row in zip(jobs, rows, strict=True):
                    try:
                        self._check(job.clip)
                        job.clip.output.parent.mkdir(parents=True, exist_ok=True)
                        with closing(actions.machine.make(job.clip, "auto", stop)) as steps:
                            for progress in steps:
                                row[-1] = progress.phase_words.lower()
                                yield rows, stage.making(progress), None
                        row[-1] = "made"
                    except ModaError as error:
                        row[-1] = actions.told(f"{error}; {error.hint}")
            except Cancelled:
                yield rows, stage.nothing("Cancelled."), None
                return
            session.keep_batch(folder)
            yield rows, *self._finished(jobs, folder)

    def _finished(self, jobs: list[Job], folder: Path) -> tuple[dict[str, Any], str | None]:
        """The last clip on the stage, and all of them in one file."""
        made = [job.clip.output for job in jobs if job.clip.output.exists()]
        if not made:
            return stage.nothing("No clip was made."), None
        archive = folder / "clips.zip"
        with zipfile.ZipFile(archive, "w") as file:  # videos do not shrink
            for path in made:
                file.write(path, path.name)
        said = f"{len(made)} of {len(jobs)} clips made"
        return stage.finished(made[-1], said), str(archive)

    def _jobs(self, files: list[str], folder: Path) -> list[Job]:
        """The jobs of the list among these files, all of whose files are among them too."""
        given, made = folder / "given", folder / "made"
        given.mkdir()
        for file in map(Path, files):
            shutil.copy(file, given / file.name)
        lists = [path for path in given.iterdir() if path.suffix.lower() in LISTS]
        if len(lists) != 1:
            what = f"{len(lists)} job lists" if lists else "no job list"
            raise UsageError(f"there is {what}", hint=f"drop one of {', '.join(LISTS)}")
        jobs = jobs_from_file(lists[0], ClipConfig(Path(), Path(), Path()), made / NAMES)
        most = self.actions.limits.jobs
        if len(jobs) > most:
            raise UsageError(f"{len(jobs)} jobs", hint=f"{most} are taken here; split the list")
        for job in jobs:
            self._check_places(job, given, made)
        return jobs

    def _check_places(self, job: Job, given: Path, made: Path) -> None:
        """Raises UsageError for a job that reaches for what is not the visitor's."""
        clip = job.clip
        inputs = [path for name in INPUT_FILES if (path := getattr(clip, name)) is not None]
        if job.urls or clip.c2pa or any(path.resolve().parent != given for path in inputs):
            hint = "drop the files beside the list, and name them without folders"
            raise UsageError(f"{job.origin} names files of elsewhere", hint=hint)
        outputs = [clip.output, *clip.side_files]
        if clip.output.suffix.lower() != ".mp4" or any(
            path.resolve().parent != made for path in outputs
        ):
            hint = "name it without a folder; it ends in .mp4"
            raise UsageError(f"{job.origin} names an output that cannot be made here", hint=hint)

    def _check(self, clip: ClipConfig) -> None:
        for path in (clip.portrait, clip.audio):
            if not path.exists():
                raise UsageError(f"{path} is missing", hint="drop it beside the list")
        self.actions.limits.check_portrait(clip.portrait)
        self.actions.limits.check_sound(clip.audio)
        if clip.timeline:
            self.actions.limits.check_timeline(clip.timeline)


def batch_tab(actions: Actions, token: gr.State) -> None:
    """Lay the tab out and wire it."""
    batch = BatchActions(actions)
    with gr.Tab("Batch"):
        gr.Markdown(HELP)
        gr.Code(EXAMPLE, language=None, label="Such as", interactive=False)
        files = gr.File(
            label="Job list, portraits and speeches", file_count="multiple", height=160,
            elem_id="batch-files",
        )  # fmt: skip
        with gr.Row():
            make = gr.Button("Make all clips", variant="primary", elem_id="make-batch")
            cancel = gr.Button("Cancel", variant="stop", elem_id="cancel-batch")
        table = gr.Dataframe([], headers=HEADERS, interactive=False, elem_id="jobs", wrap=True)
        view = gr.HTML(stage.nothing(), elem_id="batch-stage", **stage.VIEW)
        save = gr.DownloadButton("Save all clips", interactive=False, elem_id="save-batch")
    run = make.click(
        batch.make, [token, files], [table, view, save], api_name="batch",
        **at_work(actions),
    )  # fmt: skip
    run.success(lambda file: gr.DownloadButton(interactive=bool(file)), save, save, **PRIVATE)
    cancel.click(actions.cancel, queue=False, **PRIVATE)
