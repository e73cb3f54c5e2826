"""Whatever bytes a parser is given, it reads them or says what is wrong: no other exception."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import TARGETS, check

SLOW = ("sound", "standard input", "stats.json")  # each starts a process, or loads a model
DEEP = b"[" * 100_000
FOUND: dict[str, list[bytes]] = {
    "timeline.json": [DEEP, b"{}", b"[[]]", b'[{"at": 1e999, "yaw": 1}]'],
    "timeline.toml": [b"entry = 3", b"entry = [{at = 1, yaw = 1}]", b"a = " + DEEP],
    "moda.toml": [b"a = " + DEEP],
    "train.toml": [b"a = " + DEEP, b"preset = [1]"],
    "hdtf": [b"Name 0:1-0:2\nName_0 1 2 3\n"],
    "report.jsonl": [
        b'{"output": "a.mp4", "seconds": 1, "frames": 3, "fps": 0}',
        b'{"output": "' + b"a" * 5000 + b'"}',
    ],
    "jobs.jsonl": [DEEP],
    "sound": [b"OggS\xc9"],
    "config.json": [DEEP, b"[]", b'"text"', b'{"window": 1e999}'],
    "stats.json": [DEEP, b"[]", b'{"mean": 1}'],
    "index.jsonl": [DEEP, b"3\n", b"{}\n", b'{"clip": "../x", "frames": "a", "sha256": 1}\n'],
    "split": [DEEP, b"[]", b"3"],
    "journal": [
        b'{"output": "a", "key": 1, "state": "done", "at": "soon"}\n'
        b'{"output": ["a"], "key": 1, "state": "done", "at": 1}\n',
        DEEP,
    ],
    "weights.toml": [b"a = 3", b"[a]\nsource = 3", b"[a]\n[[a.source]]\nrepo = 3\nfile = 'a'"],
}


@pytest.mark.parametrize(("name", "data"), [(n, d) for n, many in FOUND.items() for d in many])
def test_what_was_found_stays_mended(name: str, data: bytes) -> None:
    check(TARGETS[name], data)


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good file with some bytes changed, left out, doubled, or another's."""
    data = bytearray(draw(st.sampled_from(seeds)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 4, 16, 64)))
        change = rng.randrange(4)
        if change == 0:
            data[at:end] = rng.randbytes(end - at)
        elif change == 1:
            del data[at:end]
        elif change == 2:
            data[at:at] = data[at:end]
        else:
            data[at:at] = rng.choice(
                (b"\0", b"\xff" * 4, b"9" * 30, b"-1", b"nan", b"{", b'"', b"\n")
            )
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    strategy = damaged(target.seeds()) | st.binary(max_size=400)

    @settings(max_examples=25 if name in SLOW else 150)
    @given(strategy)
    def run(data: bytes) -> None:
        check(target, data)

    run()
