"""A Hub on localhost: the part of the Hub's protocol that huggingface_hub uses, and its faults.

Large files are answered as the real one does: `resolve` redirects to another host (here the same
server under its other name), with commit, size and sha256 in headers.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorized: bool


@dataclass
class Hub:
    """What is served. Faults are by file name, so that a test can set and clear them."""

    port: int = 0
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)  # repo -> path -> content
    files: dict[str, bytes] = field(default_factory=dict)  # plain files under /files/
    moved: dict[str, str] = field(default_factory=dict)  # an old repository name -> its new one
    token: str = ""  # every repository asks for it, if set
    status: dict[str, int] = field(default_factory=dict)  # file name -> refused so
    cut_after: dict[str, int] = field(default_factory=dict)  # file name -> bytes per connection
    cuts_left: int = 10**9
    cut_then: dict[str, bytes] = field(default_factory=dict)  # what the file is from a cut on
    stall: set[str] = field(default_factory=set)  # file names: a cut keeps the connection, silent
    wrong: dict[str, bytes] = field(default_factory=dict)  # file name -> sent instead
    busy: dict[str, list[str]] = field(default_factory=dict)  # file name -> 429 with Retry-After
    page: set[str] = field(default_factory=set)  # file names answered by a login page
    slow: set[str] = field(default_factory=set)  # file names sent a little at a time, for seconds
    requests: list[Request] = field(default_factory=list)
    sums: dict[int, tuple[str, bytes]] = field(default_factory=dict)  # the bytes keep the id theirs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self.port}/cdn"

    def sum(self, data: bytes) -> str:
        """Sha256, once for each content: the official weights are 2 GB."""
        if id(data) not in self.sums:
            self.sums[id(data)] = (hashlib.sha256(data).hexdigest(), data)
        return self.sums[id(data)][0]

    def commit(self, repo: str) -> str:
        content = sorted((path, self.sum(data)) for path, data in self.repos[repo].items())
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def gets(self, name: str) -> list[Request]:
        """The requests that asked for the bytes of a file."""
        return [
            request
            for request in self.requests
            if request.method == "GET"
            and request.path.endswith(name)
            and "/resolve/" not in request.path
        ]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve it on a free port of this machine."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = _Server(("127.0.0.1", hub.port), Handler)
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up midway is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        authorized = self.headers.get("Authorization") == f"Bearer {hub.token}"
        hub.requests.append(
            Request(self.command, path, self.headers.get("Range"), "Authorization" in self.headers)
        )
        parts = path.strip("/").split("/")
        if parts == [""]:
            self._send(200, b"a hub")
        elif parts[0] == "files":
            self._bytes(parts[-1], hub.files.get("/".join(parts[1:])))
        elif parts[0] == "cdn":
            repo, name = "/".join(parts[1:3]), "/".join(parts[3:])
            self._bytes(parts[-1], hub.repos[repo].get(name))
        elif parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
            self._api("/".join(parts[2:4]), authorized)
        elif parts[2:3] == ["resolve"]:
            self._resolve("/".join(parts[:2]), "/".join(parts[4:]), authorized)
        else:
            self._send(404, b"")

    def _api(self, repo: str, authorized: bool) -> None:
        if not self._allowed(repo, authorized):
            return
        rows = [
            {
                "type": "file",
                "path": path,
                "size": len(data),
                "oid": self.hub.sum(data)[:40],
                "lfs": {
                    "oid": self.hub.sum(data),
                    "size": len(data),
                    "pointerSize": 134,
                },
            }
            for path, data in self.hub.repos[repo].items()
        ]
        self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: str, name: str, authorized: bool) -> None:
        if repo in self.hub.moved:
            target = self.path.replace(repo, self.hub.moved[repo], 1)
            self._send(307, b"", {"Location": target})
            return
        if not self._allowed(repo, authorized):
            return
        commit = {"X-Repo-Commit": self.hub.commit(repo)}
        content = self.hub.repos[repo].get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", **commit})
            return
        if status := self.hub.status.get(name):
            self._send(status, b"", {"X-Error-Code": "GatedRepo"} if status == 403 else {})
            return
        digest = self.hub.sum(content)
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
        location = {"Location": f"{self.hub.cdn}/{repo}/{name}"}
        self._send(302, b"", {**commit, **linked, **location})

    def _allowed(self, repo: str, authorized: bool) -> bool:
        if repo in self.hub.repos and (authorized or not self.hub.token):
            return True
        self._send(401, b"", {"X-Error-Code": "RepoNotFound"})  # the Hub tells no more than that
        return False

    def _bytes(self, name: str, content: bytes | None) -> None:
        """A file with Range, and the faults that were asked for."""
        if content is None or name in self.hub.status:
            self._send(self.hub.status.get(name, 404), b"")
            return
        if self.hub.busy.get(name):
            self._send(429, b"", {"Retry-After": self.hub.busy[name].pop(0)})
            return
        if name in self.hub.page:
            self._send(200, b"<html>Log in" * 99, {"Content-Type": "text/html; charset=utf-8"})
            return
        content = self.hub.wrong.get(name, content)
        if self.hub.cut_after.get(name) and not self.hub.cuts_left:
            content = self.hub.cut_then.get(name, content)
        tag = f'"{self.hub.sum(content)}"'
        start, asked = 0, self.headers.get("Range")
        if asked and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start and start >= len(content):
            self._send(416, b"")
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.hub.cut_after.get(name)
        if limit is not None and self.hub.cuts_left > 0:
            self.hub.cuts_left -= 1
            self.wfile.write(content[start : start + limit])
            if name in self.hub.stall:
                self.wfile.flush()
                time.sleep(60)
            self.close_connection = True  # before all that Content-Length promised
            return
        if name in self.hub.slow:
            for at in range(start, len(content), 1000):
                self.wfile.write(content[at : at + 1000])
                time.sleep(0.01)
        else:
            self.wfile.write(content[start:])

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
