"""Content credentials: a manifest signed into a file (C2PA), and reading it again.

Needs c2pa-python, the extra `c2pa`.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moda_cli import __version__
from moda_cli.errors import InputError, UsageError
from moda_cli.files import temporary_beside
from moda_cli.media.provenance import NOTICE, TRAINED

FORMATS = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".gif": "image/gif",
    ".png": "image/png",
}
EXTRA = "pip install 'moda-cli[c2pa]'"
CURVES = {256: "es256", 384: "es384", 521: "es512"}  # by the bits of their keys
SETTINGS = "moda.settings"  # label of our own assertion


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs: a certificate with those above it, and its private key, as PEM."""

    name: str  # as the user wrote them
    chain: bytes
    key: bytes
    algorithm: str  # C2PA's name of it


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signed file's manifest says, and whether that holds."""

    holds: bool  # the file is as it was signed
    trusted: bool  # and who signed it is on the reader's list
    signer: str
    generated: bool  # it declares media of a trained model
    faults: tuple[str, ...]


def load_credentials(text: str, output: Path) -> Credentials:
    """The credentials `CERT,KEY` names, tried on a small picture before any other work.

    Raises UsageError where c2pa-python is missing, for files that are no certificate and key that
    may sign, and for an output that cannot be signed.
    """
    suffix = output.suffix.lower()
    if suffix not in FORMATS or "%" in output.name:
        where = "a stream" if str(output) == "-" else output
        hint = "name a .mp4, .mov or .gif file"
        raise UsageError(f"--c2pa cannot sign {where}", hint=hint)
    if not available():
        raise UsageError("--c2pa needs c2pa-python", hint=EXTRA)
    chain, comma, key = text.partition(",")
    if not comma:
        hint = "the certificate's file, a comma, and its private key's: chain.pem,key.pem"
        raise UsageError(f"--c2pa {text} names no two files", hint=hint)
    files = [Path(name.strip()).expanduser() for name in (chain, key)]
    try:
        contents = [file.read_bytes() for file in files]
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read --c2pa {text}: {error}") from None
    credentials = Credentials(text, contents[0], contents[1], _algorithm(contents[1], files[1]))
    _sign(io.BytesIO(_small_picture()), io.BytesIO(), ".png", output.name, {}, credentials)
    return credentials


def available() -> bool:
    """Whether c2pa-python is installed."""
    try:
        import c2pa  # noqa: F401
    except ImportError:
        return False
    return True


def _algorithm(key: bytes, path: Path) -> str:
    """The signature algorithm that belongs to a private key. Raises UsageError."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        hint = f"write it without: openssl pkey -in {path} -out KEY"
        raise UsageError(f"the key in {path} is locked with a passphrase", hint=hint) from None
    except Exception as error:  # whatever it finds wrong with it
        hint = "--c2pa takes the certificate first: chain.pem,key.pem"
        raise UsageError(f"{path} is no private key in PEM: {error}", hint=hint) from None
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.key_size in CURVES:
        return CURVES[private.key_size]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    hint = "use P-256, P-384, P-521, Ed25519 or RSA"
    raise UsageError(f"C2PA does not sign with the kind of key in {path}", hint=hint)


def _small_picture() -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    return data.getvalue()


def sign(file: Path, named: Path, said: Mapping[str, Any], credentials: Credentials) -> None:
    """Put a signed manifest into a finished `file`, which will be called `named`.

    It says that a trained model made it (IPTC's trainedAlgorithmicMedia), and what `said` says.
    Raises UsageError where it cannot be signed.
    """
    signed = temporary_beside(file)
    try:
        with file.open("rb") as source, signed.open("w+b") as target:
            _sign(source, target, named.suffix.lower(), named.name, said, credentials)
        signed.replace(file)
    finally:
        signed.unlink(missing_ok=True)


def _sign(
    source: Any,
    target: Any,
    suffix: str,
    title: str,
    said: Mapping[str, Any],
    credentials: Credentials,
) -> None:
    import c2pa

    software = {"name": "moda", "version": __version__}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": TRAINED,
        "softwareAgent": software,
        "description": NOTICE,
    }
    manifest = {
        "claim_generator_info": [software],
        "title": title,
        "format": FORMATS[suffix],
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [created]}},
            {"label": SETTINGS, "data": json.loads(json.dumps(said, default=str))},
        ],
    }
    algorithm = credentials.algorithm.encode()
    info = c2pa.C2paSignerInfo(algorithm, credentials.chain, credentials.key, None)
    try:
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
            builder.sign(signer, FORMATS[suffix], source, target)
    except c2pa.C2paError as error:
        hint = "the chain is a certificate for signing documents, then those above it, in PEM"
        raise UsageError(
            f"cannot sign with --c2pa {credentials.name}: {error}", hint=hint
        ) from None


def read_signature(path: Path) -> Signature | None:
    """The signature in a file, None where there is none.

    c2pa-python must be there. Raises InputError for a manifest that cannot be read.
    """
    import c2pa

    try:
        with path.open("rb") as file, c2pa.Reader(FORMATS[path.suffix.lower()], file) as reader:
            state = str(reader.get_validation_state())
            active: dict[str, Any] = reader.get_active_manifest() or {}
            results: dict[str, Any] = reader.get_validation_results() or {}
    except KeyError:
        return None  # of a format that holds none
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        raise InputError(f"cannot read the signature in {path}: {error}") from None
    signed_by = active.get("signature_info", {})
    names = [signed_by.get(name) for name in ("common_name", "issuer")]
    failures = results.get("activeManifest", {}).get("failure", [])
    return Signature(
        holds=state in ("Valid", "Trusted"),
        trusted=state == "Trusted",
        signer=", ".join(name for name in names if name) or "nobody named",
        generated=TRAINED in json.dumps(active),
        faults=tuple(
            str(fault.get("explanation") or fault.get("code"))
            for fault in failures
            if fault.get("code") != "signingCredential.untrusted"
        ),
    )
