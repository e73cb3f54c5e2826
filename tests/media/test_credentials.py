"""Signed clips: what c2pa-python's own reader finds in them, and what a changed file gives away."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certificates import write_chain
from moda_cli.config import FPS
from moda_cli.errors import UsageError
from moda_cli.media import write_video
from moda_cli.media.credentials import FORMATS, load_credentials, read_signature
from moda_cli.media.provenance import TRAINED, read_record


def clip(path: Path, text: str) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (10, 48, 64, 3), np.uint8)
    write_video(iter(noise), path, FPS, said={"seed": 7}, credentials=load_credentials(text, path))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".gif"])
def test_a_signed_clip_says_what_made_it_and_stays_a_clip(tmp_path: Path, suffix: str) -> None:
    import c2pa

    path = clip(tmp_path / f"a{suffix}", write_chain(tmp_path))
    with path.open("rb") as file, c2pa.Reader(FORMATS[suffix], file) as reader:
        assert reader.get_validation_state() == "Valid"
        manifest = json.loads(reader.json())
    (active,) = manifest["manifests"].values()
    assertions = {each["label"]: each["data"] for each in active["assertions"]}
    (action,) = assertions["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", TRAINED)
    assert assertions["moda.settings"] == {"seed": 7}
    assert active["title"] == path.name
    assert read_record(path)["seed"] == 7
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "chain.pem", "key.pem"]
    signature = read_signature(path)
    assert signature is not None
    assert (signature.holds, signature.trusted, signature.generated) == (True, False, True)
    assert signature.signer == "signer, A test"


def test_a_changed_clip_does_not_hold(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", write_chain(tmp_path))
    data = bytearray(path.read_bytes())
    data[data.index(b"mdat") + 500] ^= 1
    path.write_bytes(data)
    signature = read_signature(path)
    assert signature is not None
    assert not signature.holds
    assert signature.faults


def test_a_clip_that_nobody_signed_has_no_signature(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm"):
        path = tmp_path / f"a{suffix}"
        write_video([np.zeros((48, 64, 3), np.uint8)], path, FPS)
        assert read_signature(path) is None


def test_keys_of_other_kinds_sign_too(tmp_path: Path) -> None:
    keys = {
        "es384": ec.generate_private_key(ec.SECP384R1()),
        "ps256": rsa.generate_private_key(65537, 2048),
    }
    for name, key in keys.items():
        text = write_chain(tmp_path, key)
        assert load_credentials(text, Path("a.mp4")).algorithm == name


def test_what_cannot_sign_is_said_before_any_work(tmp_path: Path) -> None:
    text = write_chain(tmp_path)
    chain, key = text.split(",")
    with pytest.raises(UsageError, match="no private key"):
        load_credentials(f"{key},{chain}", Path("a.mp4"))
    with pytest.raises(UsageError, match="names no two files"):
        load_credentials(chain, Path("a.mp4"))
    with pytest.raises(UsageError, match="cannot read"):
        load_credentials(f"{chain},{tmp_path / 'none.pem'}", Path("a.mp4"))
    for name in ("a.webm", "-", "shots/%03d.png"):
        with pytest.raises(UsageError, match="cannot sign"):
            load_credentials(text, Path(name))
    (tmp_path / "other").mkdir()
    _, other = write_chain(tmp_path / "other").split(",")
    with pytest.raises(UsageError, match="cannot sign with"):
        load_credentials(f"{chain},{other}", Path("a.mp4"))
    with pytest.raises(UsageError, match="passphrase"):
        load_credentials(write_chain(tmp_path, password=b"secret"), Path("a.mp4"))


def test_without_the_extra_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_chain(tmp_path)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(UsageError, match="needs c2pa-python") as raised:
        load_credentials(text, Path("a.mp4"))
    assert "moda-cli[c2pa]" in raised.value.hint
