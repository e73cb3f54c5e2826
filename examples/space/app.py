"""A Hugging Face Space: the page of `moda ui`, for everybody, within narrower limits."""

import os

from moda_cli.cli import app

PORT = os.environ.get("GRADIO_SERVER_PORT", "7860")  # the one that Spaces look at

app(["ui", "--host", "0.0.0.0", "--port", PORT, "--max-upload", "10", "--max-duration", "30"])
