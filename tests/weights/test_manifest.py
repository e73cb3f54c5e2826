"""weights.toml says enough, and nothing it must not."""

import tomllib
from importlib.util import find_spec
from math import prod
from pathlib import Path

import pytest

import moda_cli
from by_rule import key_table
from moda_cli.errors import UsageError, WeightsError
from moda_cli.files import sha256_of
from moda_cli.weights.manifest import load_manifest

PACKAGE = Path(moda_cli.__file__).parent


def test_every_file_says_where_it_is_from_and_what_may_be_done_with_it() -> None:
    for component in load_manifest().components.values():
        assert component.what
        assert component.licence
        assert component.profiles
        assert component.sources
        first = component.sources[0]
        pickled = (first.file or first.url or first.find[-1]).rsplit(".", 1)[-1]
        kept = component.name == "i3d_torchscript" or pickled == "onnx"
        assert component.convert is not kept


def test_what_may_not_be_sold_is_not_called_commercial() -> None:
    for component in load_manifest().components.values():
        forbids = ("non-commercial", "NC", "research", "not stated")
        if any(word in component.licence for word in forbids):
            assert not component.commercial, component.name


def test_the_profiles() -> None:
    manifest = load_manifest()
    assert [c.name for c in manifest.select(["moda"])] == [
        "motion_generator",
        "speech_encoder",
        "appearance_extractor",
        "motion_extractor",
        "warping",
        "spade",
        "stitching",
        "face_landmarks",
    ]
    names = {c.name for c in manifest.select(["eval", "train", "moda"])}
    assert names == set(manifest.components) == {c.name for c in manifest.select(["all"])}
    assert [c.name for c in manifest.select(["spade", "warping"])] == ["warping", "spade"]
    with pytest.raises(UsageError, match="mooda"):
        manifest.select(["mooda"])


def test_what_is_bundled_is_there_with_its_sum_and_its_converter() -> None:
    manifest = load_manifest()
    bundled = tomllib.loads(manifest.path.read_text())["bundled"]
    assert set(bundled) == {"face_detector", "face_mesh"}
    for name, entry in bundled.items():
        assert name not in manifest.components
        assert sha256_of(PACKAGE / entry["file"]) == entry["sha256"]
        assert find_spec(entry["converter"].split()[-1])
        assert Path(entry["file"]).name in (PACKAGE / "assets" / "NOTICE").read_text()


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("appearance_extractor", ["appearance_feature_extractor.json"]),
        ("motion_extractor", ["motion_extractor.json"]),
        ("warping", ["warping_module.json"]),
        ("spade", ["spade_generator.json"]),
        ("stitching", ["stitching.json", "retarget_lip.json", "retarget_eye.json"]),
        ("syncnet", ["syncnet.json"]),
        ("s3fd", ["s3fd.json"]),
    ],
)
def test_sizes_fit_the_networks(name: str, tables: list[str]) -> None:
    """Every published size is the tensors of the key table, in float32, and a little more."""
    shapes = [shape for table in tables for shape in key_table(table).values()]
    tensors = sum(4 * prod(shape) for shape in shapes)
    component = load_manifest().components[name]
    sizes = [s.size for s in component.sources if s.size is not None and s.file]
    header = 2e5 if name != "stitching" else 1.6e6  # its pickle holds further networks
    assert len(sizes) == 2
    assert all(tensors < size < tensors + header for size in sizes), (tensors, sizes)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('url = "http://example.org/a.onnx"', "not https"),
        ('url = "https://a.org/a.onnx"\nsha256 = "12"', "not a sha256"),
        ('repo = "a/b"', "file or find"),
        ('repo = "a/b"\nurl = "https://a.org/a"', "repo or a url"),
        ('repo = "a/b"\nfile = "c"\nsha = "1"', "sha"),
    ],
)
def test_a_list_of_weights_with_a_fault_is_refused(
    source: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(
        '[a]\nwhat = "a"\nprofiles = ["moda"]\nlicence = "MIT"\ncommercial = true\n'
        f"[[a.source]]\n{source}\n"
    )
    monkeypatch.setenv("MODA_WEIGHTS", str(path))
    with pytest.raises(WeightsError, match=fault):
        load_manifest()
