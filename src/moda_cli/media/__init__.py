"""Sound, pictures and video files: the only package that runs ffmpeg."""

from moda_cli.files import atomic_write
from moda_cli.media.decode import (
    LEAST_APART_S,
    VideoInfo,
    probe_video,
    read_stamped,
    read_to_and_fro,
    read_video,
    read_video_sound,
    usual_fps,
)
from moda_cli.media.encode import write_video
from moda_cli.media.formats import (
    CONTAINERS,
    check_encoder,
    check_output,
    final_path,
    is_stdout,
)
from moda_cli.media.pictures import is_video, read_image, write_image
from moda_cli.media.sound import read_audio

__all__ = [
    "CONTAINERS",
    "LEAST_APART_S",
    "VideoInfo",
    "atomic_write",
    "check_encoder",
    "check_output",
    "final_path",
    "is_stdout",
    "is_video",
    "probe_video",
    "read_audio",
    "read_image",
    "read_stamped",
    "read_to_and_fro",
    "read_video",
    "read_video_sound",
    "usual_fps",
    "write_image",
    "write_video",
]
