"""Imports point down, a name means one thing, and few calls lie between command and network."""

import ast
import re
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn
from typer.testing import CliRunner

import moda_cli
from moda_cli import pipeline
from moda_cli.cli import app
from moda_cli.generator.mmdit import MMDiT
from moda_cli.generator.takes import sample

EXAMPLES = Path(__file__).parents[1] / "examples"
ROOT = Path(moda_cli.__file__).parent
REPOSITORY = Path(__file__).parents[1]
IMPORTED_AS = {
    "c2pa-python": "c2pa", "huggingface-hub": "huggingface_hub", "imageio-ffmpeg": "imageio_ffmpeg",
    "opencv-python-headless": "cv2", "pillow": "PIL", "pytest-xdist": "xdist", "pyyaml": "yaml",
    "scikit-image": "skimage",
}  # fmt: skip
OURS = {"moda_cli", "_typeshed", *sys.stdlib_module_names}  # or Python's
BASE = {
    "config", "errors", "files", "device", "driving_template", "graphs", "motion", "owner",
    "stopping", "stopwatch",
}  # fmt: skip
FLOORS = [  # a module may import from floors below its own, and from its own package
    BASE,
    {"media", "weights"},
    {"control"},
    {"speech", "face"},
    {"generator", "render", "metrics", "data"},
    {"choice", "checks"},
    {"studio", "animation"},
    {"pipeline", "train"},
    {"jobs"},
    {"extract", "evaluate", "ui", "live"},
    {"api", "doctor"},
    {"cli"},
    {"__main__"},
]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "moda_cli":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moda_cli."):
            names.add((node.module or "").split(".")[1])
    return names - {"__version__"}


def test_imports_point_down() -> None:
    level = {name: height for height, names in enumerate(FLOORS) for name in names}
    faults = []
    for path in ROOT.rglob("*.py"):
        unit = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if unit == "__init__":
            continue
        for other in imports(path) - {unit}:
            down = level[other] < level[unit]
            within_base = unit in BASE and other in BASE
            if not (down or within_base):
                faults.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not faults


def test_a_file_is_one_concept_and_its_name_means_one_thing() -> None:
    files = [path for path in ROOT.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    long = [path.name for path in files if len(path.read_text().splitlines()) > 400]
    assert not long
    # a command's file bears the command's name, a renderer's that of what all renderers are;
    # an evaluation and a live face each have a session
    inside = [path.stem for path in files if path.parent.name != "cli"]
    twice = {name for name in inside if inside.count(name) > 1}
    assert twice <= {"renderer", "lips", "mouth", "session"}
    for package in {path.parent for path in files} - {ROOT}:
        assert ast.get_docstring(ast.parse((package / "__init__.py").read_text())), package


def test_seven_calls_from_the_command_to_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real run: who asks for a clip's motion, and who samples it, in the thread it has."""
    asked: list[str] = []
    sampled: list[str] = []

    def ours(first: str) -> list[str]:
        frames = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT)]
        names = [frame.name for frame in frames]
        return names[names.index(first) :]

    def asking(*given: object) -> Iterator[Tensor]:
        asked.extend(ours("generate"))
        return sample(*given)  # type: ignore[arg-type]

    def forward(module: nn.Module, _: object) -> None:
        if isinstance(module, MMDiT) and not sampled:
            sampled.extend([*ours("sample"), "forward"])

    monkeypatch.setattr(pipeline, "sample", asking)
    hook = nn.modules.module.register_module_forward_pre_hook(forward)
    try:
        files = [EXAMPLES / "portrait.png", EXAMPLES / "speech.wav", "-o", tmp_path / "out.mp4"]
        options = ["--size", 64, "--steps", 1, "--device", "cpu", "--model", "mini"]
        done = CliRunner().invoke(app, ["generate", *map(str, files + options)])
    finally:
        hook.remove()
    assert done.exit_code == 0, done.output
    assert asked == ["generate", "generate", "animate"]
    assert sampled == ["sample", "sample_windows", "sample_euler", "velocity", "forward"]


def modules(*folders: str) -> set[str]:
    """What their files import, by its first name."""
    names: set[str] = set()
    for path in [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    if any(name.startswith("torch.utils.tensorboard.") for name in names):
        names.add("tensorboard")
    return {name.partition(".")[0] for name in names} - OURS


def test_what_is_imported_is_declared_and_nothing_else_is() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    every = {"": project["dependencies"], **project["optional-dependencies"]}
    declared = {
        extra: {IMPORTED_AS.get(name, name) for name in (re.split(r"[><=;]", n)[0] for n in given)}
        for extra, given in every.items()
    }
    ours, tested = modules("src"), modules("src", "tests", "benchmarks") | {"xdist", "ruff", "mypy"}
    assert ours <= set.union(*declared.values())
    assert declared.pop("test") <= tested
    assert set.union(*declared.values()) <= ours


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from moda_cli.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'librosa', 'skimage', 'rich', 'aiohttp'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_generating_never_imports_librosa() -> None:
    code = "import sys, moda_cli.pipeline; print({'librosa', 'numba', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
