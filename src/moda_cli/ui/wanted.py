"""What a visitor asks for: the fields of the page as one value."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig

MARK = "AI-generated"  # what is written into the picture where the visitor wants it


@dataclass(frozen=True, slots=True)
class Wanted:
    """Settings of a clip, in the units of the page's fields."""

    emotion: str = "none"
    intensity: float = 1.0
    head_motion: float = 1.0
    seed: int = SamplerConfig().seed
    model: str = "auto"
    aspect: str = ""  # the portrait's own, unless named
    size: int | None = None  # longer side in pixels; None: the portrait's
    face: str = "largest"
    face_points: str = ""
    force: bool = False
    mark: bool = False  # write MARK into the picture

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Wanted":
        """Fields as the page or a program gives them: numbers may be floats, texts absent."""
        asked = cls(**{name: value for name, value in given.items() if value is not None})
        return replace(
            asked,
            seed=int(asked.seed),
            size=int(asked.size) if asked.size else None,
            face_points=asked.face_points.strip(),
        )

    @property
    def feeling(self) -> str:
        """The emotion as the command line writes it."""
        partly = self.emotion not in ("none", "auto") and self.intensity != 1
        return f"{self.emotion}@{self.intensity:g}" if partly else self.emotion

    def clip(self, portrait: Path, sound: Path, timeline: Path | None, folder: Path) -> ClipConfig:
        """The clip, which goes into `folder` with its motion."""
        return ClipConfig(
            portrait,
            sound,
            folder / "clip.mp4",
            emotion=self.feeling,
            timeline=timeline,
            face=self.face,
            face_points=self.face_points or None,
            force=self.force,
            label=MARK if self.mark else None,
            save_motion=folder / "motion.safetensors",
            sampler=SamplerConfig(seed=self.seed),
            render=RenderConfig(
                head_motion=self.head_motion, size=self.size, aspect=self.aspect or None
            ),
        )

    def values(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)
