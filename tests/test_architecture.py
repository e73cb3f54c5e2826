"""Imports point down, and `moda --help` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import moda_cli

ROOT = Path(moda_cli.__file__).parent
BASE = {"config", "errors", "files", "device", "motion"}
FLOORS = [  # a module may import from floors below its own, and from its own package
    BASE,
    {"media", "weights", "control"},
    {"speech", "face"},
    {"generator", "render", "metrics", "data"},
    {"choice", "checks"},
    {"studio"},
    {"pipeline", "train"},
    {"jobs"},
    {"extract", "evaluate", "ui"},
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


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from moda_cli.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'librosa', 'skimage', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_generating_never_imports_librosa() -> None:
    code = "import sys, moda_cli.pipeline; print({'librosa', 'numba', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
