"""A web service: `python examples/web_service.py [PORT]`, then
`curl --data-binary @speech.wav 'localhost:8000/?emotion=happy' -o out.mp4`."""

import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import moda_cli as moda

PORTRAIT = Path(__file__).parent / "portrait.png"
pipeline = moda.Pipeline.load()


class Speak(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            sound, video = Path(name, "speech"), Path(name, "out.mp4")
            sound.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                options = {k: v for k, v in parse_qsl(urlsplit(self.path).query) if k == "emotion"}
                pipeline.generate(PORTRAIT, sound, video, size=256, **options)
                status, kind, body = 200, "video/mp4", video.read_bytes()
            except moda.ModaError as error:
                status, kind, body = 400, "text/plain", f"{error}: {error.hint}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)


server = HTTPServer(("localhost", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Speak)
print(f"listening on port {server.server_port}", flush=True)
server.serve_forever()
