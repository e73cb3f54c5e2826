"""The pages of docs/ say what is so: their commands run, their tables are the program's own."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from input_cases import EXAMPLES, speech, talking, wav
from option_page import page

DOCS = Path(__file__).parents[1] / "docs"
BLOCKS = re.findall(r"```sh\n(.*?)```", (DOCS / "recipes.md").read_text("utf-8"), re.DOTALL)
LINK = re.compile(r"\]\((?!http)([^)#]+)")


def test_the_page_of_options_is_current() -> None:
    assert (DOCS / "options.md").read_text("utf-8") == page(), "python tests/support/option_page.py"


@pytest.mark.parametrize("path", [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")], ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_recipes_work(block: str, tmp_path: Path) -> None:
    (tmp_path / "me.png").write_bytes((EXAMPLES / "portrait.png").read_bytes())
    (tmp_path / "talk.mp4").write_bytes(talking("mp4"))
    (tmp_path / "speech.wav").write_bytes(wav(speech(1.2)))
    (tmp_path / "jobs.csv").write_text(
        "portrait,audio,emotion,seed\nme.png,speech.wav,sad,1\nme.png,speech.wav,happy,2\n"
    )
    for line in block.strip().splitlines():
        command = line.replace("moda ", f"{shlex.quote(sys.executable)} -m moda_cli ", 1)
        before = set(tmp_path.rglob("*"))
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
        assert set(tmp_path.rglob("*")) - before, line
