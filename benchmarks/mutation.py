"""Do the tests bite? `python -m benchmarks.mutation --sample 60 --seed 0 face render media`

Plants one fault after another in a copy of the tree: an operator, a comparison, a condition or a
constant is changed. Runs the tests nearest to the module by imports, its own test file first, until
one fails, and prints a line a fault. What no test finds is to be looked at: a gap in the tests, or
a change that changes nothing.

Limits are processor time, not the clock, so that a busy machine neither finds nor loses a fault: a
test file may use several times what it used on the clean tree. With `--out` the faults done before
are not done again, but for those alive if `--alive` asks for them.
"""

import argparse
import ast
import compileall
import contextlib
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pytest

from moda_cli.files import append_row, whole_rows

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "examples", "benchmarks", "docs", "weights.toml", "pyproject.toml",
          "README.md", "SECURITY.md", "CONTRIBUTING.md", "constraints.txt", ".ci")  # fmt: skip
REACH = 3  # imports between a test file and the module
TIMES, PLUS_S = 4, 30  # processor time allowed with a fault, by that without
UNKNOWN_S = 300  # where that is not known yet
PRELOADED = ("torch", "cv2", "hypothesis", "scipy.signal", "soundfile", "safetensors.torch",
             "PIL.Image", "typer.testing")  # fmt: skip
STUCK_S = 600  # by the clock: a test that waits so long for nothing hangs, which is a failure
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
    """The test files that import it: the one of its name, its folder's, then others."""
    mirrored = ROOT / "tests" / module.relative_to(ROOT / "src" / "moda_cli").parent
    while not mirrored.is_dir():
        mirrored = mirrored.parent
    reached = []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        near, distance = {test}, 0
        while module not in near and distance < REACH:
            near |= {other for path in near for other in imported(path)}
            distance += 1
        if module in near:
            own = test.parent == mirrored
            words = set(test.stem.split("_")) & set(module.stem.split("_"))
            named = test.stem == f"test_{module.stem}"
            size = test.stat().st_size
            reached.append((not named, not own, distance, -len(words), size, test))
    return [row[-1] for row in sorted(reached)]


@dataclass(slots=True)
class Copy:
    """A copy of the tree where faults are planted; what its clean test files use is kept."""

    folder: Path
    clean: dict[str, float | None]  # test file to seconds of a processor; None: fails already
    keep: Callable[..., None]  # a row of what was measured

    def __post_init__(self) -> None:
        for name in COPIED:
            if (ROOT / name).is_dir():
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, self.folder / name, ignore=leave)
            elif (ROOT / name).is_file():
                shutil.copy2(ROOT / name, self.folder / name)
        compileall.compile_dir(self.folder / "src", quiet=1)  # a planted file is read anew

    def run(self, test: str, limit_s: int | None = None) -> tuple[str, float]:
        """What failed first in a test file, "" if nothing, and the processor time used."""
        log = self.folder / "said.txt"
        child = os.fork()  # has torch loaded, which takes longer than most tests
        if not child:
            _test(self.folder, test, limit_s, log)
        _, status, used = os.wait4(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a killed test left at work
        used_s = used.ru_utime + used.ru_stime
        code = os.waitstatus_to_exitcode(status)
        if code in (0, 5):  # 5: every test of it is deselected
            return "", used_s
        if code == -signal.SIGXCPU:
            return f"more than {limit_s} s of a processor in {test}", used_s
        lines = log.read_text(errors="replace").splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return (failed[0][:160] if failed else f"exit {code} of {test}"), used_s

    def hunt(self, fault: Fault, most_s: float) -> tuple[str, str]:
        """found, alive or `no test`; and the test that found it, or how many did not.

        The first test file always runs, others as long as all of them use at most `most_s` of a
        processor when clean.
        """
        tests = [str(path.relative_to(ROOT)) for path in tests_of(ROOT / fault.path)]
        own = f"test_{Path(fault.path).name}"
        slow = {test for test in tests if (self.clean.get(test) or 0) > most_s / 2}
        tests.sort(key=lambda test: (Path(test).name != own, test in slow))
        place = self.folder / fault.path
        whole, spent, tried = place.read_bytes(), 0.0, 0
        for test in tests:
            clean_s = self.clean.get(test, 0.0)  # unknown: run, and measured by that
            if clean_s is None or (tried and spent + clean_s > most_s):
                continue
            limit_s = int(TIMES * clean_s + PLUS_S) if clean_s else UNKNOWN_S
            place.write_bytes(fault.planted(whole))
            try:
                failed, used_s = self.run(test, limit_s)
            finally:
                place.write_bytes(whole)
            if test not in self.clean:
                fails, used_s = self.run(test) if failed else ("", used_s)
                self.clean[test] = None if fails else round(used_s, 1)
                self.keep(clean=test, used_s=self.clean[test], failed=fails)
                if fails:
                    continue
            if failed:
                return "found", failed
            tried, spent = tried + 1, spent + (self.clean[test] or 0)
            if spent >= most_s:
                break
        return ("alive", f"{tried} of {len(tests)} files") if tried else ("no test", "")


def _test(folder: Path, test: str, limit_s: int | None, log: Path) -> None:
    """Become a pytest of the copy, and end."""
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells ignore it
        if limit_s:
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
        with open(os.devnull) as nothing, log.open("w") as file:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        paths = [str(folder / name) for name in ("src", "tests/support", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        sys.path[:0] = paths
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.startswith(("moda_cli", "benchmarks"))]:
            del sys.modules[name]
        options = (f"faulthandler_timeout={STUCK_S}", "faulthandler_exit_on_timeout=true")
        plugins = ("no:cacheprovider", "no:xdist")
        code = pytest.main(
            ["-x", *(f"-p{name}" for name in plugins), *(f"-o{name}" for name in options), test]
        )
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Plant, hunt and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__)
    parser.add_argument("packages", nargs="+", help="of moda_cli, or modules such as train/alse")
    parser.add_argument("--sample", type=int, default=60, help="faults of them all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=float, default=60, help="s of a processor for clean tests")
    parser.add_argument("--out", type=Path, help="a JSON line a fault; goes on where it ended")
    parser.add_argument("--alive", action="store_true", help="those not found before once more")
    args = parser.parse_args()

    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in PRELOADED:
        importlib.import_module(name)
    source = ROOT / "src" / "moda_cli"
    files = [
        path
        for name in args.packages
        for path in (sorted((source / name).rglob("*.py")) or [source / f"{name}.py"])
    ]
    every = [fault for path in files for fault in faults(path)]
    sample = random.Random(args.seed).sample(every, min(args.sample, len(every)))
    rows = whole_rows(args.out) if args.out else []
    clean = {row["clean"]: row["used_s"] for row in rows if "clean" in row}
    outcomes = {Fault(**row["fault"]): row["outcome"] for row in rows if "fault" in row}
    if args.alive:
        outcomes = {fault: outcome for fault, outcome in outcomes.items() if outcome != "alive"}
    print(f"{len(every)} possible faults in {len(files)} files, {len(sample)} drawn", flush=True)

    def keep(**row: object) -> None:
        if args.out:
            append_row(args.out, row)

    with tempfile.TemporaryDirectory(prefix="moda-mutation-") as folder:
        copy = Copy(Path(folder), clean, keep)
        for fault in sample:
            if fault in outcomes:
                continue
            began = time.monotonic()
            outcomes[fault], by = copy.hunt(fault, args.most)
            keep(fault=asdict(fault), outcome=outcomes[fault], by=by)
            print(
                f"{outcomes[fault]:8} {time.monotonic() - began:4.0f} s  {fault.path}:{fault.line}"
                f"  {fault.before!r} -> {fault.after!r}  {by}", flush=True,
            )  # fmt: skip
    counted = Counter(outcomes[fault] for fault in sample)
    print(", ".join(f"{number} {outcome}" for outcome, number in counted.items()))


if __name__ == "__main__":
    main()
