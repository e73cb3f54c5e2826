"""Sound, pictures and video files: the only package that runs ffmpeg."""

from moda_cli.files import atomic_write
from moda_cli.media.decode import VideoInfo, probe_video, read_video, read_video_sound
from moda_cli.media.encode import (
    CONTAINERS,
    check_encoder,
    check_output,
    final_path,
    is_stdout,
    write_video,
)
from moda_cli.media.pictures import read_image, write_image
from moda_cli.media.sound import read_audio

__all__ = [
    "CONTAINERS",
    "VideoInfo",
    "atomic_write",
    "check_encoder",
    "check_output",
    "final_path",
    "is_stdout",
    "probe_video",
    "read_audio",
    "read_image",
    "read_video",
    "read_video_sound",
    "write_image",
    "write_video",
]
