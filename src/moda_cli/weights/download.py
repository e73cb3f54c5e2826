"""Fetching weights: source by source, checked, converted and recorded.

The transfer is our own because huggingface_hub (2.4) neither goes on with a file that an earlier
process began nor checks a sum; the files still lie where it keeps them, for every tool to share.
"""

import logging
import os
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from moda_cli.errors import WeightsError
from moda_cli.files import sha256_of
from moda_cli.weights.convert import convert
from moda_cli.weights.manifest import Component, Source, load_manifest
from moda_cli.weights.store import (
    Installed,
    cache_dir,
    command_for,
    installed,
    read_lock,
    record,
    require,
)
from moda_cli.weights.transfer import (
    Halt,
    client_error,
    disk_error,
    fetch,
    proxy_of,
    refusal,
    retry_after_s,
    unreachable,
)

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int | None], None]  # component, bytes so far, bytes in all
NUM_THREADS = 4


class Unreachable(WeightsError):
    """A host does not answer, or may not be asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    component: Component
    status: str  # fetched, present, or skipped: its sum is not known and it is not trusted
    entry: Installed | None


@dataclass(frozen=True, slots=True)
class _Fetched:
    path: Path
    file: str  # path in the repository, or the URL
    revision: str
    sha256: str


def ensure(names: Sequence[str], on_progress: OnProgress | None = None) -> dict[str, Path]:
    """The files of these components, fetched first where they are missing.

    Raises WeightsError, offline within 20 s, with the command that fetches them.
    """
    manifest = load_manifest()
    missing = [manifest.component(name) for name in names if installed(name) is None]
    if missing:
        try:
            download(missing, on_progress=on_progress)
        except WeightsError as error:
            command = command_for([component.name for component in missing])
            hints = filter(None, (error.hint, f"`{command}` fetches them"))
            raise WeightsError(str(error), hint="; ".join(hints)) from error
    return require(*names)


def download(
    components: Sequence[Component],
    trusted: Collection[str] = (),
    on_progress: OnProgress | None = None,
) -> list[Outcome]:
    """Fetch what is missing, several at a time. What succeeded stays, whatever else fails.

    Raises WeightsError naming every component that failed and why.
    """
    present = {c.name for c in components if installed(c.name)}
    skipped = {
        c.name
        for c in components
        if c.name not in trusted and not any(source.checkable for source in c.sources)
    }
    missing = [c for c in components if c.name not in present | skipped]
    run = _Run(missing, trusted, on_progress or (lambda *_: None))
    faults: dict[tuple[str, str], list[str]] = {}  # (message, hint) -> components
    pool = ThreadPoolExecutor(NUM_THREADS)
    try:
        jobs = {pool.submit(run.obtain, component): component for component in missing}
        for job in as_completed(jobs):
            try:
                job.result()
            except WeightsError as error:
                faults.setdefault((str(error), error.hint), []).append(jobs[job].name)
    finally:
        run.stop.set()
        pool.shutdown(cancel_futures=True)
    if faults:
        hints = dict.fromkeys(hint for _, hint in faults if hint)
        raise WeightsError(
            "\n".join(f"{', '.join(names)}: {message}" for (message, _), names in faults.items()),
            hint="; ".join(hints),
        )
    lock = read_lock()
    return [
        Outcome(
            c,
            "present" if c.name in present else "skipped" if c.name in skipped else "fetched",
            lock.get(c.name) if c.name not in skipped - present else None,
        )
        for c in components
    ]


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


class _Run:
    """One `moda download`: which hosts answer, whom to tell, and whether to stop."""

    def __init__(
        self, components: Sequence[Component], trusted: Collection[str], on_progress: OnProgress
    ) -> None:
        self.trusted = trusted
        self.on_progress = on_progress
        self.stop = threading.Event()
        hosts = {_host(source) for component in components for source in component.sources}
        self.silent = hosts if offline() else unreachable(hosts)

    def obtain(self, component: Component) -> None:
        """Fetch, check, convert and record one component from the first source that works."""
        from filelock import FileLock

        lock = cache_dir() / "locks" / f"{component.name}.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                if installed(component.name) is None:  # another process may have been faster
                    record(component.name, self._first(component))
        except OSError as error:
            raise disk_error(error, Path(error.filename or cache_dir()).parent) from error

    def _first(self, component: Component) -> Installed:
        faults: list[WeightsError] = []
        for source in component.sources:
            for fault in faults[-1:]:
                if isinstance(fault, Unreachable):
                    continue  # said once, at the end
                log.warning("%s: %s; trying %s", component.name, fault, source)
            try:
                return self._from(component, source)
            except Halt:
                raise
            except WeightsError as error:
                faults.append(error)
        raise WeightsError(
            "; ".join(dict.fromkeys(map(str, faults))),
            hint=next((fault.hint for fault in faults if fault.hint), ""),
        )

    def _from(self, component: Component, source: Source) -> Installed:
        found = self._hub(component, source) if source.repo else self._url(component, source)
        path = found.path
        if component.convert and not found.file.endswith(".safetensors"):
            path = cache_dir() / "converted" / f"{component.name}-{found.sha256[:12]}.safetensors"
            convert(found.path, path, component)
        entry = Installed(
            source=str(source),
            file=found.file,
            revision=found.revision,
            sha256=found.sha256,
            size=found.path.stat().st_size,
            path=str(path.absolute()),
            path_sha256=found.sha256 if path == found.path else sha256_of(path),
            path_size=path.stat().st_size,
        )
        if source.url and path != found.path:
            found.path.unlink()  # what is loaded is the converted file; the Hub's cache is shared
        return entry

    def _fetch(
        self, component: Component, url: str, part: Path, size: int | None, headers: dict[str, str]
    ) -> None:
        def on_bytes(done: int) -> None:
            if self.stop.is_set():
                raise Halt("interrupted")
            self.on_progress(component.name, done, size)

        try:
            fetch(url, part, size=size, headers=headers, on_bytes=on_bytes)
        except OSError as error:
            raise disk_error(error, part.parent) from error

    def _url(self, component: Component, source: Source) -> _Fetched:
        if source.sha256 is None and component.name not in self.trusted:
            raise _untrusted(component, source)
        target = cache_dir() / "files" / f"{component.name}-{Path(urlsplit(source.url).path).name}"
        if _host(source) in self.silent:
            raise _silent(_host(source))
        part = target.with_name(target.name + ".part")
        if source.sha256 is None:
            part.unlink(missing_ok=True)  # without a sum, halves of two files would go unnoticed
        self._fetch(component, source.url, part, source.size, {})
        digest = _verified(part, source, source.size, source.sha256)
        if source.sha256 is None:
            log.warning("%s: taken on trust and recorded: sha256 %s", component.name, digest)
        part.replace(target)
        return _Fetched(target, source.url, "", digest)

    def _hub(self, component: Component, source: Source) -> _Fetched:
        """The file in the Hub's cache, fetched into it if need be."""
        from huggingface_hub import (
            constants,
            get_hf_file_metadata,
            get_token,
            hf_hub_download,
            hf_hub_url,
            try_to_load_from_cache,
        )
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.file_download import repo_folder_name

        if endpoint() in self.silent:
            return _from_cache(source)
        try:
            file = source.file or _find(component, source)
            url = hf_hub_url(source.repo, file, revision=source.revision, endpoint=endpoint())
            meta = get_hf_file_metadata(url)
        except HfHubHTTPError as error:
            page = f"{endpoint()}/{source.repo}"
            wait_s = retry_after_s(error.response.headers)
            raise refusal(error.response.status_code, str(source), page, wait_s) from error
        except client_error() as error:
            raise _silent(endpoint()) from error
        if not meta.etag or not meta.commit_hash:
            raise WeightsError(f"{endpoint()} does not answer like a Hub")
        size = source.size if source.size is not None else meta.size
        wanted = source.sha256
        if len(meta.etag) == 64:  # the Hub's own sha256 of a large file
            _same(source, "sha256", meta.etag, wanted)
            wanted = meta.etag
        _same(source, "size", meta.size, source.size)
        if wanted is None and component.name not in self.trusted:
            raise _untrusted(component, source)

        cached = try_to_load_from_cache(source.repo, file, revision=meta.commit_hash)
        if isinstance(cached, str):
            try:
                return _Fetched(
                    Path(cached),
                    file,
                    meta.commit_hash,
                    _verified(Path(cached), source, size, wanted),
                )
            except WeightsError:
                log.warning("%s: the cached %s is damaged; fetching it again", component.name, file)
        folder = repo_folder_name(repo_id=source.repo, repo_type="model")
        blob = Path(constants.HF_HUB_CACHE) / folder / "blobs" / meta.etag
        part = blob.with_name(f"{blob.name}.moda.incomplete")
        fixed = hf_hub_url(source.repo, file, revision=meta.commit_hash, endpoint=endpoint())
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._fetch(component, fixed, part, size, headers)
        digest = _verified(part, source, size, wanted)
        part.replace(blob)  # huggingface_hub finds it there, and only links it to its name
        path = hf_hub_download(source.repo, file, revision=source.revision, endpoint=endpoint())
        if meta.commit_hash not in Path(path).parts:
            raise WeightsError(f"{source} changed meanwhile", hint="run the same command again")
        return _Fetched(Path(path), file, meta.commit_hash, digest)


def _find(component: Component, source: Source) -> str:
    """The path of a file whose place in the repository is not established: listed, and said."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    paths = api.list_repo_files(source.repo, revision=source.revision)
    for end in source.find:
        matches = [path for path in paths if path == end] or [
            path for path in paths if path.endswith("/" + end)
        ]
        if len(matches) > 1:
            raise WeightsError(f"{source.repo} has several {end}: {', '.join(sorted(matches))}")
        if matches:
            log.info("%s: found as %s in %s", component.name, matches[0], source.repo)
            return matches[0]
    raise WeightsError(
        f"{source.repo} has no {' or '.join(source.find)} among its {len(paths)} files",
        hint=f"see {endpoint()}/{source.repo}",
    )


def _from_cache(source: Source) -> _Fetched:
    """What the Hub's cache holds of a source, without the network."""
    from huggingface_hub import try_to_load_from_cache

    cached = source.file and try_to_load_from_cache(
        source.repo, source.file, revision=source.revision
    )
    if not isinstance(cached, str) or not cached:
        raise _silent(endpoint())
    path = Path(cached)
    blob = path.resolve().name  # the Hub's sum, where the cache is made of links
    wanted = source.sha256 or (blob if len(blob) == 64 else None)
    if wanted is None:
        raise _silent(endpoint())
    commit = path.parts[-len(Path(source.file).parts) - 1]
    _same(source, "size", path.stat().st_size, source.size)
    digest = sha256_of(path)
    _same(source, "sha256", digest, wanted)
    return _Fetched(path, source.file, commit, digest)


def _verified(path: Path, source: Source, size: int | None, wanted: str | None) -> str:
    """The file's sha256. A file that is not what it should be is removed."""
    try:
        _same(source, "size", path.stat().st_size, size)
        digest = sha256_of(path)
        _same(source, "sha256", digest, wanted)
    except WeightsError:
        _discard(path)
        raise
    return digest


def _same(source: Source, what: str, found: object, wanted: object) -> None:
    if found is not None and wanted is not None and found != wanted:
        raise WeightsError(
            f"{source} is refused: its {what} is {found}, not {wanted}",
            hint="it is not the file that was published; nothing of it was kept",
        )


def _discard(path: Path) -> None:
    """Remove a file and, in the Hub's cache, what its link points to."""
    target = path.resolve()
    path.unlink(missing_ok=True)
    target.unlink(missing_ok=True)


def _host(source: Source) -> str:
    if source.repo:
        return endpoint()
    where = urlsplit(source.url)
    return f"{where.scheme}://{where.netloc}"


def _silent(host: str) -> Unreachable:
    if offline():
        return Unreachable(
            "not in the cache, and HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE"
        )
    if proxy := proxy_of(host):
        hint = f"check that proxy, or unset {urlsplit(host).scheme.upper()}_PROXY"
        return Unreachable(f"{host} cannot be reached through the proxy {proxy}", hint=hint)
    return Unreachable(f"{host} cannot be reached", hint="check the network connection")


def _untrusted(component: Component, source: Source) -> WeightsError:
    return WeightsError(
        f"{source} has no known sum to check",
        hint=f"`--trust {component.name}` takes it as it is and records its sum",
    )
