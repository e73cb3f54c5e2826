"""Do the tests bite? `python -m benchmarks.mutation --sample 60 --seed 0 face render media`

Plants one fault after another in a copy of the tree: an operator, a comparison, a condition or a
constant is changed. Runs the tests nearest to the module by imports until one fails, and prints a
line a fault. What no test finds is to be looked at: a gap in the tests, or a change that changes
nothing.
"""

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "examples", "benchmarks", "docs", "weights.toml", "pyproject.toml",
          "README.md", "SECURITY.md", "CONTRIBUTING.md", "constraints.txt", ".ci")  # fmt: skip
REACH = 3  # imports between a test file and the module
STUCK_S = 90  # one test that takes longer hangs, which is a failure
SWAPS: dict[type, str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*",
    ast.Pow: "*", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=",
    ast.NotEq: "==", ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.And: "or", ast.Or: "and",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of a file: the text from `start` to `end` is another."""

    path: str  # from the root
    line: int
    start: int
    end: int
    before: str
    after: str

    def planted(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


def faults(path: Path) -> Iterator[Fault]:
    """Every change of one file that leaves it readable."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def span(node: ast.AST) -> tuple[int, int]:
        first, last = (starts[getattr(node, f"{name}lineno") - 1] for name in ("", "end_"))
        return first + node.col_offset, last + node.end_col_offset  # type: ignore[attr-defined]

    def fault(start: int, end: int, after: str) -> Fault:
        line = source[:start].count(b"\n") + 1
        name = str(path.relative_to(ROOT))
        return Fault(name, line, start, end, source[start:end].decode(), after)

    def between(left: ast.AST, operator: ast.AST, right: ast.AST) -> Iterator[Fault]:
        """The operator's own text: what lies between its operands, brackets aside."""
        start, end = span(left)[1], span(right)[0]
        text = source[start:end].decode()
        word = text.strip("() \n\\")
        if word and "#" not in word and "\n" not in word:
            at = start + text.index(word)
            yield fault(at, at + len(word), SWAPS[type(operator)])

    for node in _judged(ast.parse(source)):
        if isinstance(node, ast.BinOp) and type(node.op) in SWAPS and not _is_text(node):
            yield from between(node.left, node.op, node.right)
        elif isinstance(node, ast.Compare):
            for left, op, right in zip(
                [node.left, *node.comparators], node.ops, node.comparators, strict=False
            ):
                yield from between(left, op, right)
        elif isinstance(node, ast.BoolOp):
            yield from between(node.values[0], node.op, node.values[1])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            start, _ = span(node)
            yield fault(start, start + len("not " if isinstance(node.op, ast.Not) else "-"), "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield fault(*span(node), str(not node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            changed = node.value + 1 if isinstance(node.value, int) else 1.5 * node.value + 0.1
            yield fault(*span(node), repr(changed))
        elif isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
            start, end = span(node.test)
            yield fault(start, end, f"(not ({source[start:end].decode()}))")


def _judged(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute; annotations, raised texts and what is logged decide nothing."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_params") or isinstance(tree, ast.Assert):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.Raise | ast.JoinedStr):
                continue
            is_log = isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")
            is_alias = isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(
                ("NDArray[", "Callable[")
            )
            if not is_log and not is_alias:
                yield node
                yield from _judged(node)


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


@cache
def imported(path: Path) -> frozenset[Path]:
    """The files of this tree that one imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            stem = Path(*name.split("."))
            for folder in (ROOT / "src", ROOT / "tests" / "support"):
                places = (folder / f"{stem}.py", folder / stem / "__init__.py")
                found |= {place for place in places if place.is_file()}
    return frozenset(found - {path})


def tests_of(module: Path) -> list[Path]:
    """The test files that import it, nearest first; its own folder's before others."""
    mirrored = ROOT / "tests" / module.relative_to(ROOT / "src" / "moda_cli").parent
    reached = []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        near, distance = {test}, 0
        while module not in near and distance < REACH:
            near |= {other for path in near for other in imported(path)}
            distance += 1
        if module in near:
            own = test.parent == mirrored
            named = test.stem == f"test_{module.stem}"
            reached.append((distance, not named, not own, test.stat().st_size, test))
    return [row[-1] for row in sorted(reached)]


def _hear_interrupts() -> None:
    """In the background a shell has them ignored, and tests of Ctrl-C would fail of it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def hunt(fault: Fault, copy: Path, limit_s: float) -> tuple[str, str]:
    """found, alive or `no test`; and the test that found it."""
    tests = [str(path.relative_to(ROOT)) for path in tests_of(ROOT / fault.path)]
    if not tests:
        return "no test", ""
    place = copy / fault.path
    whole = place.read_bytes()
    place.write_bytes(fault.planted(whole))
    paths = os.pathsep.join(str(copy / name) for name in ("src", "tests", "tests/support"))
    settings = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    stuck = [f"faulthandler_timeout={STUCK_S}", "faulthandler_exit_on_timeout=true"]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p",
               "no:xdist", *(f"-o{option}" for option in stuck), *tests]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=copy, env={**os.environ, **settings}, capture_output=True, text=True,
            timeout=limit_s, stdin=subprocess.DEVNULL, preexec_fn=_hear_interrupts,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "alive", f"after {limit_s:.0f} s"
    finally:
        place.write_bytes(whole)
    if done.returncode == 0:
        return "alive", f"{len(tests)} files"
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "found", lines[0][:160] if lines else f"exit {done.returncode}"


def main() -> None:
    """Plant, hunt and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__)
    parser.add_argument("packages", nargs="+", help="of moda_cli, or modules such as train/alse")
    parser.add_argument("--sample", type=int, default=60, help="faults of them all")
    parser.add_argument("--skip", type=int, default=0, help="faults of the sample done before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=240, help="seconds a fault")
    parser.add_argument("--out", type=Path, help="a JSON line a fault")
    args = parser.parse_args()

    source = ROOT / "src" / "moda_cli"
    files = [
        path
        for name in args.packages
        for path in (sorted((source / name).rglob("*.py")) or [source / f"{name}.py"])
    ]
    every = [fault for path in files for fault in faults(path)]
    sample = random.Random(args.seed).sample(every, min(args.sample, len(every)))[args.skip :]
    print(f"{len(every)} possible faults in {len(files)} files, {len(sample)} planted", flush=True)
    counted = Counter[str]()
    with tempfile.TemporaryDirectory(prefix="moda-mutation-") as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, copy / name, ignore=leave)
            elif (ROOT / name).is_file():
                shutil.copy2(ROOT / name, copy / name)
        for fault in sample:
            began = time.monotonic()
            outcome, by = hunt(fault, copy, args.limit)
            counted[outcome] += 1
            change = f"{fault.before!r} -> {fault.after!r}"
            took = time.monotonic() - began
            print(
                f"{outcome:8} {took:4.0f} s  {fault.path}:{fault.line}  {change}  {by}", flush=True
            )
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps({**asdict(fault), "outcome": outcome, "by": by}) + "\n")
    print(", ".join(f"{number} {outcome}" for outcome, number in counted.items()))


if __name__ == "__main__":
    main()
