"""Where `moda serve` listens, and the token that is asked of others than this machine."""

import errno
import ipaddress
import secrets
import socket
from importlib.util import find_spec

from moda_cli.errors import UsageError

INSTALL = "pip install 'moda-cli[serve]'"
PORTS = range(7860, 7960)  # of which the first free one is taken
SHORTEST = 12  # characters of a token
ANYWHERE = ("0.0.0.0", "::", "")


def check_extra() -> None:
    """Raises UsageError where aiohttp is not installed."""
    if find_spec("aiohttp") is None:
        raise UsageError("serving needs aiohttp, which is not here", hint=INSTALL)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of other names than localhost it is not so."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needed_token(host: str, given: str | None) -> str | None:
    """The token that clients must have: what is given, or one made where others reach `host`.

    Raises UsageError for one that can be guessed.
    """
    if given is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if len(given) < SHORTEST or not given.isascii() or not given.isprintable():
        hint = f"give {SHORTEST} or more letters and digits; beyond this machine one is made"
        raise UsageError("--token can be guessed or cannot be sent", hint=hint)
    return given


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens there. Raises UsageError where nobody may."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        for number in PORTS if port is None else (port,):
            try:
                return socket.create_server((place[0], number), family=family)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or number in (port, PORTS[-1]):
                    raise
    except OSError as error:
        where = host if port is None else f"{host}, port {port}"
        hint = "give another --port, or none" if port else "give another --host"
        raise UsageError(f"cannot serve on {where}: {error.strerror}", hint=hint) from None
    raise AssertionError("a port is taken or refused")


def address(listening: socket.socket, host: str, token: str | None) -> str:
    """What a browser on this machine opens."""
    name = "127.0.0.1" if host in ANYWHERE else f"[{host}]" if ":" in host else host
    query = f"?token={token}" if token else ""
    return f"http://{name}:{listening.getsockname()[1]}/{query}"
