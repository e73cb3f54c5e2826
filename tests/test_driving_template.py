"""LivePortrait's driving templates: read as they are written, and nothing in them runs."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moda_cli.errors import InputError
from moda_cli.motion import EXPRESSION, POSE, SCALE, load_motion


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """R as LivePortrait makes it of degrees: the transpose of Rz Ry Rx."""
    x, y, z = np.radians([pitch, yaw, roll])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return (rz @ ry @ rx).T


def template(frames: int = 50, rate: float = 25, name: str = "R") -> dict[str, object]:
    def frame(k: int) -> dict[str, np.ndarray]:
        numbers = {
            "scale": np.full((1, 1), 1.4),
            name: rotation(k / 10, -k / 5, 3)[None],
            "exp": np.arange(63).reshape(1, 21, 3) / 1e4 * k,
            "t": np.array([[0.1, -0.2, 0.5]]),
            "kp": np.zeros((1, 21, 3)),
            "x_s": np.zeros((1, 21, 3)),
        }
        return {key: value.astype(np.float32) for key, value in numbers.items()}

    eyes = [np.ones((1, 2), np.float32)] * frames
    return {
        "n_frames": frames,
        "output_fps": rate,
        "motion": [frame(k) for k in range(frames)],
        "c_eyes_lst": eyes,
        "c_lip_lst": [np.float32(0.1)] * frames,
    }


def written(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])  # of numpy 1 and 2
def test_a_template_is_motion(tmp_path: Path, protocol: int, core: str) -> None:
    path = written(tmp_path / "d0.pkl", template(), protocol)
    if protocol < 4:  # names are bare text there
        data = path.read_bytes().replace(b"numpy._core.", b"numpy.core.")
        path.write_bytes(data.replace(b"numpy.core.", f"{core}.".encode()))
    read = load_motion(path)
    assert read.motion.shape == (50, 70)
    assert not read.absolute
    torch.testing.assert_close(read.neutral, read.motion[0])
    expected = torch.tensor([[k / 10, -k / 5, 3] for k in range(50)])
    torch.testing.assert_close(read.motion[:, POSE], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(read.motion[30, EXPRESSION], torch.arange(63) / 1e4 * 30)
    torch.testing.assert_close(read.motion[9, SCALE.start :][:4], torch.tensor([1.4, 0.1, -0.2, 0]))


def test_rates_and_older_names(tmp_path: Path) -> None:
    assert len(load_motion(written(tmp_path / "a.pkl", template(60, 30))).motion) == 50
    old = load_motion(written(tmp_path / "b.pkl", template(name="R_d"))).motion
    assert float(old[40, 67]) == pytest.approx(4, abs=1e-3)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *given: object) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.given


def evil(name: str, marker: Path) -> bytes:
    """A pickle that would touch `marker`, or worse."""
    calls = {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "getattr": Call(getattr, "x", "join"),
        "objects": np.array([Call(os.system, f"touch {marker}")], dtype=object),
    }
    if name in calls:
        return pickle.dumps({**template(2), "extra": calls[name]})
    text = {
        "nested name": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pabc\n.",
        "instance": b"(S'touch x'\nios\nsystem\n.",
        "state of a function": b"\x80\x02c_codecs\nencode\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
        "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "bytes": b"\x80\x05\x96\xff\xff\xff\xff\x0f\x00\x00\x00.",
    }
    return text[name]


EVIL = {
    "system": "system",
    "eval": "eval",
    "getattr": "getattr",
    "objects": "array of O",
    "nested name": "builtins.eval",
    "extension": "extension",
    "persistent": "outside the file",
    "instance": "os.system",
    "state of a function": "a state of",
    "memo": "no driving template",
    "bytes": "cannot read",
}


@pytest.mark.parametrize("name", EVIL)
def test_nothing_in_a_pickle_runs(tmp_path: Path, name: str) -> None:
    marker, path = tmp_path / "touched", tmp_path / "d.pkl"
    data = evil(name, marker)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"d\.pkl") as refused:
        load_motion(path)
    assert EVIL[name] in str(refused.value)
    assert not marker.exists()
    if name == "system":  # the same pickle runs elsewhere
        pickle.loads(data)
        assert marker.exists()


def broken(change: Callable[[dict[str, object]], object]) -> dict[str, object]:
    made = template(3)
    change(made)
    return made


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "no driving template"),
        ({"n_frames": 3}, "there is no 'motion'"),
        (broken(lambda t: t["motion"][1].pop("exp")), "there is no 'exp'"),  # type: ignore[index]
        (broken(lambda t: t["motion"][1].update(exp=np.zeros((1, 20, 3)))), "exp of a frame"),  # type: ignore[index]
        (broken(lambda t: t["motion"][1].update(exp=[[0.0] * 63])), "no array"),  # type: ignore[index]
        (broken(lambda t: t.update(motion=[])), "no list of frames"),
        (broken(lambda t: t.update(output_fps=1e9)), "rate"),
        (broken(lambda t: t["motion"][0].update(scale=np.array([[np.nan]]))), "non-finite"),  # type: ignore[index]
        (broken(lambda t: t["motion"][0].update(scale=np.array([[0.0]]))), "scale"),  # type: ignore[index]
    ],
)
def test_what_is_no_template_is_named(tmp_path: Path, content: object, reason: str) -> None:
    with pytest.raises(InputError, match=r"d\.pkl") as refused:
        load_motion(written(tmp_path / "d.pkl", content))
    assert reason in str(refused.value)


def test_an_array_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"motion": [{"exp": np.zeros((7, 9), np.float32)}]}, 2)
    assert data.count(b"K\x07K\x09") == 1
    path = tmp_path / "d.pkl"
    path.write_bytes(data.replace(b"K\x07K\x09", b"K\x7fK\x09"))
    with pytest.raises(InputError, match="cannot reshape"):
        load_motion(path)
