"""MoDA talking heads: one portrait and one speech recording in, a video out.

    import moda_cli as moda

    moda.generate("portrait.png", "speech.wav", "out.mp4", emotion="happy")

Nothing heavy is loaded before the first use of one of these names. What a user can act on is raised
as a ModaError, whose `hint` says what to do.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Pipeline": "api",
    "generate": "api",
    "load_motion": "api",
    "save_motion": "api",
    "scale": "control.recordings",
    "smooth": "control.recordings",
    "concat": "control.recordings",
    "retime": "control.recordings",
    "mix": "control.recordings",
    "ClipConfig": "config",
    "RenderConfig": "config",
    "SamplerConfig": "config",
    "Recording": "motion",
    "Result": "pipeline",
    "ModaError": "errors",
    "DeviceError": "errors",
    "InputError": "errors",
    "UsageError": "errors",
    "WeightsError": "errors",
}
__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from moda_cli.api import Pipeline as Pipeline
    from moda_cli.api import generate as generate
    from moda_cli.api import load_motion as load_motion
    from moda_cli.api import save_motion as save_motion
    from moda_cli.config import ClipConfig as ClipConfig
    from moda_cli.config import RenderConfig as RenderConfig
    from moda_cli.config import SamplerConfig as SamplerConfig
    from moda_cli.control.recordings import concat as concat
    from moda_cli.control.recordings import mix as mix
    from moda_cli.control.recordings import retime as retime
    from moda_cli.control.recordings import scale as scale
    from moda_cli.control.recordings import smooth as smooth
    from moda_cli.errors import DeviceError as DeviceError
    from moda_cli.errors import InputError as InputError
    from moda_cli.errors import ModaError as ModaError
    from moda_cli.errors import UsageError as UsageError
    from moda_cli.errors import WeightsError as WeightsError
    from moda_cli.motion import Recording as Recording
    from moda_cli.pipeline import Result as Result


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
