"""One file over HTTP: resumed where it stopped, retried when cut, never trusted before its sum."""

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from moda_cli.errors import WeightsError

RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)  # between tries that bring nothing new
READ_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 8.0  # together with the listing below the 20 s that `ensure` may take offline


class Halt(WeightsError):
    """A fault that no other source would cure: a full disk, a cut line."""


class _Again(Exception):
    """The server's answer is worth another try."""


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
            if wait is None:
                done = f"{_length(part)} of {size} bytes" if size else f"{_length(part)} bytes"
                raise Halt(
                    f"the connection to {urlsplit(url).netloc} broke off after {done}",
                    hint="run the same command again: it goes on from there",
                ) from error
            on_bytes(_length(part))  # may raise: the user wants no other try
            time.sleep(wait)


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
        if response.status_code == 416 or response.status_code in (408, 429, 500, 502, 503, 504):
            if response.status_code == 416:
                part.unlink()  # longer than the file there is now
            raise _Again(f"{response.status_code}")
        if response.status_code not in (200, 206):
            raise refusal(response.status_code, url)
        with part.open("ab" if response.status_code == 206 else "wb") as file:
            for chunk in response.iter_bytes():  # as they come: a cut loses nothing
                file.write(chunk)
                on_bytes(file.tell())
    if size is not None and _length(part) < size:
        raise _Again("short answer")
    tag = str(response.headers.get("ETag", ""))
    return "" if tag.startswith("W/") else tag


def refusal(status: int, what: str, page: str = "") -> WeightsError:
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
    return WeightsError(f"{what} answers {status}", hint="try again later")


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
