"""What a file says of how it was made."""

import platform

from moda_cli import __version__

NOTICE = f"AI-generated talking head, made with moda {__version__}"


def versions() -> dict[str, str]:
    """The software that decides what a clip looks like."""
    import torch

    return {"moda": __version__, "torch": torch.__version__, "python": platform.python_version()}
