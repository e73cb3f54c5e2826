"""The page's timeline editor: a table of entries, drawn under the waveform, to a file."""

import csv
from pathlib import Path
from typing import Any

import gradio as gr

from moda_cli.config import EMOTIONS, SAMPLE_RATE
from moda_cli.control.timeline import TRACKS
from moda_cli.control.timeline_file import read_timeline, write_timeline
from moda_cli.errors import UsageError
from moda_cli.media import read_audio
from moda_cli.ui.actions import Actions
from moda_cli.ui.drawings import KINDS, timeline_drawing
from moda_cli.ui.make_tab import PRIVATE

TRACKED = tuple(column for columns in KINDS.values() for column in columns)
COLUMNS = ("at", "until", "ease", *TRACKED)
HELP = (
    "From second `at` on something is asked for, until `until` or the next entry. Gaze is -1 to 1"
    " of what eyes can reach, to the picture's right and down; angles are degrees."
)
# A click on the drawing names its moment.
TEMPLATE = "<div style='overflow-x: auto; contain: inline-size'>${value}</div>"
SCRIPT = """
element.addEventListener('click', (event) => {
  const drawing = element.querySelector('svg');
  if (!drawing) return;
  const box = drawing.getBoundingClientRect();
  trigger('select', { share: (event.clientX - box.left) / box.width });
});
"""

Rows = list[list[Any]]


class TimelineActions:
    """What the editor's buttons do. rows: cells in the order of COLUMNS, empty where unsaid."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def add(self, rows: Rows, kind: str, at: float, until: float | None, *values: Any) -> Rows:
        """The entries and one more, of a kind; values: of all tracks of KINDS, in their order."""
        given = dict(zip(TRACKED, values, strict=True))
        asked = {track: given[track] for track in KINDS[kind]}
        asked = {track: value for track, value in asked.items() if value} or asked
        cells = {"at": round(at or 0, 2), "until": until or "", **asked}
        if asked.get("intensity") == 1:
            del cells["intensity"]
        kept = [row for row in rows if any(str(cell or "").strip() for cell in row)]
        return [*kept, [cells.get(column, "") for column in COLUMNS]]

    def draw(
        self, token: str, request: gr.Request, speech: str | None, rows: Rows
    ) -> tuple[str, Any]:
        """The entries over the speech, and their file to be saved. Raises an error of Gradio's."""
        drawn, path = self._written(token, request, speech, rows)
        return drawn, gr.DownloadButton(value=path, interactive=path is not None)

    def _written(
        self, token: str, request: gr.Request, speech: str | None, rows: Rows
    ) -> tuple[str, str | None]:
        """The drawing, and the file; that of no entries is none."""
        with self.actions.errors():
            if not speech:
                raise UsageError("there is no speech", hint="give one under Make")
            self.actions.limits.check_sound(Path(speech))
            wave = read_audio(Path(speech))
            folder = self.actions.session(token, request).folder
            table = folder / "timeline.csv"
            with table.open("w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file)
                lines.writerow(COLUMNS)
                lines.writerows([_cell(cell) for cell in row] for row in rows)
            timeline = read_timeline(table, inserts=False)
            timeline.check_within(len(wave) / SAMPLE_RATE)
            drawn = timeline_drawing(wave, timeline.entries, EMOTIONS)
            if not timeline.entries:
                return drawn, None
            path = folder / "timeline.toml"
            write_timeline(path, timeline)
        return drawn, str(path)

    def use(
        self, token: str, request: gr.Request, speech: str | None, rows: Rows
    ) -> tuple[str, Any, str]:
        """The same, and the file becomes that of the next clip."""
        drawn, path = self._written(token, request, speech, rows)
        with self.actions.errors():
            if path is None:
                raise UsageError("the timeline is empty", hint="add an entry")
        gr.Info("The next clip follows this timeline.")
        return drawn, gr.DownloadButton(value=path, interactive=True), path

    def moment(self, speech: str | None, event: gr.EventData) -> float:
        """The second of the speech that was clicked."""
        if not speech:
            return 0.0
        return round(float(event.share) * len(read_audio(Path(speech))) / SAMPLE_RATE, 2)


def _cell(value: Any) -> str:
    """As it stands in the file: nothing where a table holds None or not a number."""
    return "" if value is None or value != value else str(value).strip()


def timeline_tab(actions: Actions, token: gr.State, speech: gr.Audio, timeline: gr.File) -> None:
    """Lay the tab out and wire it. timeline: the field that the next clip takes its file from."""
    editor = TimelineActions(actions)
    with gr.Tab("Timeline") as tab:
        gr.Markdown(HELP)
        drawing = gr.HTML("", html_template=TEMPLATE, js_on_load=SCRIPT, elem_id="timeline-drawing")
        with gr.Row():
            kind = gr.Radio(list(KINDS), value="emotion", label="What", elem_id="kind")
            at = gr.Number(0, label="At, seconds", minimum=0, elem_id="at")
            until = gr.Number(0, label="Until (0: the next)", minimum=0, elem_id="until")
        with gr.Row() as feeling:
            names = [name for name in EMOTIONS if name != "none"]
            values: list[Any] = [
                gr.Dropdown(names, value="happy", label="Emotion", elem_id="timed-emotion"),
                gr.Slider(0, 1, 1, step=0.05, label="Intensity"),
            ]
        rows_of = {"emotion": feeling}
        for name in ("gaze", "pose"):
            with gr.Row(visible=False) as rows_of[name]:
                step = 0.05 if name == "gaze" else 1
                for track in KINDS[name]:
                    rule = TRACKS[track]
                    values.append(gr.Slider(rule.low, rule.high, 0, step=step, label=track))
        add = gr.Button("Add", elem_id="add-entry")
        table = gr.Dataframe(
            [], headers=list(COLUMNS), type="array", interactive=True, label="Entries",
            datatype="str", row_count=1, column_count=len(COLUMNS), elem_id="entries",
        )  # fmt: skip
        with gr.Row():
            check = gr.Button("Check and draw", elem_id="draw-timeline")
            use = gr.Button("Use it for the next clip", variant="primary", elem_id="use-timeline")
            save = gr.DownloadButton(
                "Save the timeline", interactive=False, elem_id="save-timeline"
            )
    kind.change(
        lambda chosen: [gr.Row(visible=name == chosen) for name in rows_of],
        kind, list(rows_of.values()), **PRIVATE,
    )  # fmt: skip
    given = [token, speech, table]
    draws: dict[str, Any] = {
        "fn": editor.draw,
        "inputs": given,
        "outputs": [drawing, save],
        **PRIVATE,
    }
    added = add.click(editor.add, [table, kind, at, until, *values], table, **PRIVATE)
    for event in (added.success, check.click, tab.select):
        event(**draws)
    drawing.select(editor.moment, speech, at, **PRIVATE)
    use.click(editor.use, given, [drawing, save, timeline], **PRIVATE)
