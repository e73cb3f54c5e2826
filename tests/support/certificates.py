"""A certificate that may sign, its key, and the authority above it: all made here."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A test"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _certificate(name: str, key: Key, above: Key, *, authority: bool) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        not authority, False, False, False, False, authority, authority, False, False
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False
        )
    )
    if not authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = made.add_extension(purpose, critical=True)
    return made.sign(above, hashes.SHA256()).public_bytes(PEM)


def write_chain(folder: Path, key: Key | None = None, password: bytes = b"") -> str:
    """CERT,KEY of a certificate that an authority of our own signs."""
    key, above = (
        key or ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    chain = _certificate("signer", key, above, authority=False)
    (folder / "chain.pem").write_bytes(
        chain + _certificate("authority", above, above, authority=True)
    )
    locked = serialization.BestAvailableEncryption(password) if password else None
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(
        key.private_bytes(PEM, form, locked or serialization.NoEncryption())
    )
    return f"{folder / 'chain.pem'},{folder / 'key.pem'}"
