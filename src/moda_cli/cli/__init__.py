"""The command line: parse, call, print a path. No tensor in sight."""

from moda_cli.cli import doctor, download, evaluate, extract, generate, info, serve, train, ui
from moda_cli.cli.app import app

__all__ = [
    "app",
    "doctor",
    "download",
    "evaluate",
    "extract",
    "generate",
    "info",
    "serve",
    "train",
    "ui",
]
