"""The columns of the results table: what each is called, which way it is better, what it says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A number of the table."""

    key: str
    title: str
    metric: str
    better: str = ""  # low, high, or neither
    digits: int = 3
    unit: str = ""
    about: str = ""


COLUMNS = (
    Column("fvd", "FVD", "fvd", "low", 1, about="distance of motion to the real clips (I3D)"),
    Column("fid", "FID", "fid", "low", 2, about="distance of frames to the real ones (Inception)"),
    Column("f_sim", "F-SIM", "fsim", "high", 3, about="likeness of every face to the portrait's"),
    Column("sync_c", "Sync-C", "sync", "high", 3, about="SyncNet's confidence"),
    Column("sync_d", "Sync-D", "sync", "low", 3, about="SyncNet's distance"),
    Column("smoothness", "Smooth", "smooth", "high", 4, about="motion smoothness (AMT-S)"),
    Column("rtf", "RTF", "rtf", "low", 3, about="time to make a clip over its duration"),
    Column("rtf_encode", "RTF+enc", "rtf", "low", 3, about="the same with encoding"),
    Column(
        "offset", "Offset", "sync", digits=1, unit="frames late", about="picture behind the sound"
    ),
    Column("tracked", "Tracked", "sync", "high", 3, about="share of frames on the face track"),
    Column("faceless", "Faceless", "fsim", "low", 3, about="share of frames without a face"),
    Column("lip_sync", "Lip sync", "face", "high", 3, about="mouth opening against loudness, r"),
    Column(
        "lip_lag", "Lip lag", "face", digits=1, unit="frames late", about="mouth behind the sound"
    ),
    Column("silence_motion", "Silence", "face", "low", 4, "IOD", "mouth motion in pauses"),
    Column("jitter", "Jitter", "face", "low", 5, "IOD", "second difference of eyes and nose"),
    Column("flicker", "Flicker", "face", "low", 3, "levels", "outside the head, frame to frame"),
    Column("repeated", "Repeated", "face", "low", 3, about="share of frames shown twice"),
    Column("sharpness", "Sharpness", "face", "high", 3, about="finest detail in the face"),
    Column("sharpness_drift", "Sharpness drift", "face", digits=3, about="last fifth to first"),
    Column("structure_drift", "Structure drift", "face", "low", 3, about="face less like itself"),
    Column("followed", "Followed", "face", "high", 3, about="share of frames with that face"),
)
PAPER = ("fvd", "fid", "f_sim", "sync_c", "sync_d", "smoothness", "rtf")
