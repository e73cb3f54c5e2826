"""The command line: parse, call, print a path. No tensor in sight."""

from moda_cli.cli import download, evaluate, extract, generate, train
from moda_cli.cli.app import app

__all__ = ["app", "download", "evaluate", "extract", "generate", "train"]
