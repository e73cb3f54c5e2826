"""One file over HTTP: resumed where it stopped, retried when cut, never trusted before its sum.

An answer is judged by its status, type and length before a byte of it is kept.
"""

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from moda_cli.errors import WeightsError

RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)  # between tries that bring nothing new
READ_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 8.0  # together with the listing below the 20 s that `ensure` may take offline
LONGEST_WAIT_S = 120.0  # that a server may ask for; longer, and the user is told instead
BUSY = (408, 429, 500, 502, 503, 504)  # worth another try


class Halt(WeightsError):
    """A fault that no other source would cure: a full disk, a cut line."""


class _Again(Exception):
    """The server's answer is worth another try, after as long as it asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def client_error() -> type[Exception]:
    """The base of the HTTP client's own errors; which client depends on huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    base = HfHubHTTPError.__mro__[1]
    assert issubclass(base, Exception)
    return base


def unreachable(urls: Iterable[str]) -> set[str]:
    """Those of these addresses whose host does not answer at all, known within seconds."""
    from huggingface_hub import get_session

    silent = set(urls)

    def probe(url: str) -> None:
        try:
            get_session().head(url, timeout=PROBE_TIMEOUT_S)
        except (client_error(), OSError):
            return
        silent.discard(url)

    threads = [threading.Thread(target=probe, args=(url,), daemon=True) for url in set(urls)]
    deadline = time.monotonic() + PROBE_TIMEOUT_S + 2  # looking up a name heeds no timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return set(silent)


def proxy_of(url: str) -> str:
    """The proxy that stands before an address, without the password it may hold, or nothing."""
    where = urlsplit(url)
    proxy = "" if proxy_bypass(where.netloc) else getproxies().get(where.scheme, "")
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else proxy


def fetch(
    url: str,
    part: Path,
    *,
    size: int | None,
    headers: dict[str, str],
    on_bytes: Callable[[int], None],
) -> None:
    """Bring `part` to its full length, going on from where it ends.

    Raises Halt when the line stays cut or the disk is full, WeightsError for a refusal.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    waits = iter(RETRY_WAITS_S)
    tag = ""  # of the first answer: a file that changes meanwhile is begun again
    while True:
        before = _length(part)
        try:
            tag = _get(url, part, size, {**headers, **({"If-Range": tag} if tag else {})}, on_bytes)
            return
        except (client_error(), _Again) as error:
            if _length(part) > before:
                waits = iter(RETRY_WAITS_S)
            wait = next(waits, None)
            asked = error.wait_s if isinstance(error, _Again) else 0.0
            if wait is None or asked > LONGEST_WAIT_S:
                raise _given_up(url, part, size, error) from error
            until = time.monotonic() + max(wait, asked)
            while (left := until - time.monotonic()) > 0:
                on_bytes(_length(part))  # may raise: the user wants no other try
                time.sleep(min(left, 0.5))


def _given_up(url: str, part: Path, size: int | None, error: Exception) -> Halt:
    host = urlsplit(url).netloc
    done = f"{_length(part)} of {size} bytes" if size else f"{_length(part)} bytes"
    if not isinstance(error, _Again):
        hint = "run the same command again: it goes on from there"
        return Halt(f"the connection to {host} broke off after {done}", hint=hint)
    when = f"in {error.wait_s:.0f} s" if error.wait_s else "later"
    hint = f"run the same command again {when}: it goes on from there"
    return Halt(f"{host} {error} after {done}", hint=hint)


def _get(
    url: str,
    part: Path,
    size: int | None,
    headers: dict[str, str],
    on_bytes: Callable[[int], None],
) -> str:
    """One GET, appended to `part`. Returns the answer's strong ETag."""
    from huggingface_hub import get_session

    start = _length(part)
    if size is not None and start == size:
        return ""
    if size is not None:
        _room_for(size - start, part.parent)
    if start:
        headers = {**headers, "Range": f"bytes={start}-"}
    headers["Accept-Encoding"] = "identity"
    stream = get_session().stream(
        "GET", url, headers=headers, follow_redirects=True, timeout=READ_TIMEOUT_S
    )
    with stream as response:
        status = response.status_code
        if status == 416:
            part.unlink()  # longer than the file there is now
            raise _Again("changed the file")
        if status in BUSY:
            raise _Again(f"answers {status}", retry_after_s(response.headers))
        if status not in (200, 206):
            raise refusal(status, url)
        _check_is_the_file(url, response.headers, start if status == 206 else 0, size)
        with part.open("ab" if status == 206 else "wb") as file:
            for chunk in response.iter_bytes():  # as they come: a cut loses nothing
                file.write(chunk)
                on_bytes(file.tell())
    if size is not None and _length(part) < size:
        raise _Again("ends its answer")
    tag = str(response.headers.get("ETag", ""))
    return "" if tag.startswith("W/") else tag


def _check_is_the_file(url: str, headers: Mapping[str, str], start: int, size: int | None) -> None:
    """Raises WeightsError for a page in the file's place, or a part that does not fit."""
    host = urlsplit(url).netloc
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise WeightsError(
            f"{host} answers with a web page ({kind}) in place of {url}",
            hint="a login or a proxy may stand in between: open the address in a browser",
        )
    if start and not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        found = headers.get("Content-Range", "no Content-Range")
        raise WeightsError(f"{host} sends another part of {url}: {found}, not from byte {start}")
    length = headers.get("Content-Length", "")
    if size is not None and length.isdigit() and start + int(length) != size:
        raise WeightsError(
            f"{url} is refused: its size is {start + int(length)}, not {size}",
            hint="it is not the file that was published; nothing of it was kept",
        )


def retry_after_s(headers: Mapping[str, str]) -> float:
    """The seconds that an answer asks to wait (Retry-After: a number or a date), or 0."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def refusal(status: int, what: str, page: str = "", wait_s: float = 0.0) -> WeightsError:
    """The error for an HTTP status; `page` is where a user accepts terms or looks for the file."""
    if status in (401, 403):
        fault = "is not there or not public" if status == 401 else "is not for everyone"
        return WeightsError(
            f"{what} {fault} ({status})",
            hint=f"accept its terms on {page}, then set HF_TOKEN to a token that may read it"
            if page
            else "the server refuses this machine",
        )
    if status == 404:
        return WeightsError(f"{what} is not there (404)", hint=f"see {page}" if page else "")
    when = f"in {wait_s:.0f} s" if wait_s else "later"
    return WeightsError(f"{what} answers {status}", hint=f"try again {when}")


def disk_error(error: Exception, folder: Path) -> Halt:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "space" in str(error):
        return Halt(f"no space left in {folder}", hint="free some, or set HF_HOME and MODA_CACHE")
    return Halt(f"{folder} cannot be written: {error}", hint="set HF_HOME and MODA_CACHE")


def _room_for(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise Halt(
            f"no space left in {folder}: {size} bytes to fetch, {free} free",
            hint="free some, or set HF_HOME and MODA_CACHE",
        )


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
