"""What a file says of how it was made, as one JSON value, and reading that again."""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from moda_cli import __version__
from moda_cli.config import INPUT_FILES, SIDE_FILES, ClipConfig
from moda_cli.errors import InputError
from moda_cli.files import parse_json, sha256_of

NOTICE = f"AI-generated talking head, made with moda {__version__}"
# IPTC's term for media that a trained model has made, as C2PA uses it too
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NOT_SETTINGS = ("output", "overwrite", "provenance", "c2pa", "sampler", "render", "seed")


def versions() -> dict[str, str]:
    """The software that decides what a clip looks like."""
    import torch

    return {"moda": __version__, "torch": torch.__version__, "python": platform.python_version()}


def record(clip: ClipConfig, model: str, renderer: str) -> dict[str, Any]:
    """How a clip is made, for its own file: nothing in it depends on when or where.

    Files are named without their folders. What came through a pipe has no sum.
    """
    inputs = {name: path for name in INPUT_FILES if (path := getattr(clip, name)) is not None}
    return {
        "version": __version__,
        "digital_source_type": TRAINED,
        "model": model,
        "renderer": renderer,
        "seed": clip.sampler.seed,
        "settings": settings(clip),
        "inputs": {
            name: {"name": path.name, "sha256": sha256_of(path) if path.is_file() else None}
            for name, path in inputs.items()
        },
    }


def settings(clip: ClipConfig) -> dict[str, Any]:
    """The options that shape a clip, by name, apart from its files and its seed."""
    values = {
        field.name: getattr(part, field.name)
        for part in (clip, clip.sampler, clip.render)
        for field in fields(part)
    }
    others = (*INPUT_FILES, *SIDE_FILES, *NOT_SETTINGS)
    return {name: value for name, value in values.items() if name not in others}


def comment(said: Mapping[str, Any]) -> str:
    """The text that goes into a file: one JSON value, in ASCII, beginning with the notice."""
    return json.dumps({"notice": NOTICE, **said}, default=str)


def read_comment(path: Path) -> str:
    """The comment in a video or picture, empty where there is none.

    Raises InputError for a file that is neither.
    """
    from moda_cli.media.ffmpeg import Reading, check_is_media, file_input

    check_is_media(path)
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89PNG"):
        return _png_comment(path)
    output = ["-map_metadata", "0", "-f", "ffmetadata", "pipe:1"]
    with Reading([*file_input(path), *output], str(path)) as run:
        text = bytearray()
        while block := run.read(1 << 16):
            text += block
        if run.end():
            raise InputError(f"{path} is neither a video nor a picture", hint="give it a clip")
    found = re.search(r"(?im)^comment=((?:\\.|\\\n|[^\\\n])*)", text.decode(errors="replace"))
    return re.sub(r"\\([\s\S])", r"\1", found[1]) if found else ""


def _png_comment(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return str(image.info.get("Comment", ""))
    except Exception as error:  # whatever its decoders raise
        raise InputError(f"cannot read {path} as a picture: {error}") from None


def read_record(path: Path) -> dict[str, Any]:
    """What a clip says of itself; empty where it says nothing, only a notice where that is all.

    Raises InputError for a file that is no video or picture.
    """
    text = read_comment(path)
    try:
        said = parse_json(text)
    except ValueError:
        said = None
    if isinstance(said, dict) and "AI-generated" in str(said.get("notice")):
        return said
    return {"notice": text} if text.startswith("AI-generated") else {}
