"""The options of `moda generate`, under their headings."""

from pathlib import Path
from typing import Annotated

from moda_cli.cli.options import BATCH, DTYPES, FILES, MACHINE, RENDERERS, Panel
from moda_cli.config import (
    ASPECTS,
    CODEC_ALIASES,
    CODEC_NAMES,
    COLOURS,
    DRIVEN,
    EMOTIONS,
    LIMITS,
    PARTS,
    SUBTITLES_AS,
    TRANSPARENT,
)

EXPRESSION, VIDEO, ALSO = map(Panel, ("Expression", "Video", "Also write"))

Portrait = Annotated[
    Path | None,
    FILES.argument(
        "PORTRAIT",
        "Picture or video of a face, or a folder of them. Without arguments: an example.",
    ),
]
Audio = Annotated[
    Path | None,
    FILES.argument(
        "AUDIO",
        "Speech in any format, a video's sound, or a folder; - takes WAV, or raw 16-bit"
        " 16 kHz mono PCM, as it arrives.",
    ),
]
Output = Annotated[
    Path | None,
    FILES.text(
        "--output",
        "FILE",
        "Video (.mp4 .mov .webm .mkv .gif), folder/, dir/%06d.png, or - to stream MP4. A"
        " batch's may be named like out/{portrait}_{seed}.mp4. Default: PORTRAIT_AUDIO.mp4 in"
        " the working folder, numbered where that is taken.",
        "-o",
    ),
]
Overwrite = Annotated[bool, FILES.switch("--overwrite", "Replace files that are there.", "-y")]
Open = Annotated[bool, FILES.switch("--open", "Play the finished video with the system's player.")]
Face = Annotated[
    str,
    FILES.text(
        "--face",
        "WHICH",
        "largest, left, right, or a number counted from the left.",
        values=("largest", "left", "right"),
    ),
]
FacePoints = Annotated[
    str | None,
    FILES.text(
        "--face-points",
        "'X,Y X,Y X,Y'",
        "Left pupil, right pupil, mouth centre, in pixels.",
    ),
]
Background = Annotated[
    str,
    FILES.text(
        "--background",
        "COLOUR",
        f"Behind a transparent portrait: {' '.join(COLOURS)} or #rrggbb; {TRANSPARENT} keeps it"
        " cut out.",
        values=(*COLOURS, TRANSPARENT),
    ),
]
Motion = Annotated[
    Path | None,
    FILES.text(
        "--motion",
        "FILE",
        "Move so instead of to the speech: a motion file, a video of a face, or LivePortrait's"
        " template (.pkl).",
    ),
]
Take = Annotated[
    list[str] | None,
    FILES.text(
        "--take",
        "PART",
        f"What of --motion: {' '.join(PARTS)}, the rest follows the speech. More with commas, or"
        " again. Default: all.",
        values=PARTS,
    ),
]
Force = Annotated[
    bool, FILES.switch("--force", "Animate a doubtful face too. Batch: finished jobs again.")
]
Emotion = Annotated[
    str,
    EXPRESSION.text(
        "--emotion",
        "EMOTION",
        f"{' '.join(EMOTIONS)}; some of it: happy@0.5; a timeline: 0:neutral,2.5:happy@0.8; or"
        " auto: as the voice sounds.",
        values=(*EMOTIONS, "auto"),
    ),
]
Timeline = Annotated[
    Path | None,
    EXPRESSION.text(
        "--timeline",
        "FILE",
        "What is asked for when, as .toml .json or .csv: emotion, head, gaze, blinks, pauses.",
    ),
]
EmotionScale = Annotated[
    float | None,
    EXPRESSION.number(
        "--emotion-scale", "Guidance towards the emotion; 1 is off.", *LIMITS["emotion_scale"]
    ),
]
AudioScale = Annotated[
    float | None,
    EXPRESSION.number(
        "--audio-scale", "Guidance towards the speech; 1 is off.", *LIMITS["audio_scale"]
    ),
]
Guidance = Annotated[
    float | None,
    EXPRESSION.number(
        "--guidance", "Joint guidance; 1 is off. Default: the model's.", *LIMITS["guidance"]
    ),
]
HeadMotion = Annotated[
    float,
    EXPRESSION.number("--head-motion", "Multiplies head movement.", *LIMITS["head_motion"]),
]
ExpressionScale = Annotated[
    float,
    EXPRESSION.number(
        "--expression-scale", "Multiplies the facial expression.", *LIMITS["expression_scale"]
    ),
]
Blink = Annotated[bool, EXPRESSION.switch("--blink/--no-blink", "Move the eyelids.")]
BlinkRate = Annotated[
    float | None,
    EXPRESSION.number(
        "--blink-rate", "Blinks a minute, by rule. Default: the model's.", *LIMITS["blink_rate"]
    ),
]
SilenceGate = Annotated[
    bool | None,
    EXPRESSION.switch(
        "--silence-gate/--no-silence-gate",
        "Close the mouth where nobody speaks. Default: mini does, moda follows its release.",
    ),
]
Redrive = Annotated[
    str | None,
    EXPRESSION.text(
        "--redrive",
        "PARTS",
        f"What speech moves in a video as PORTRAIT: some of {','.join(DRIVEN)}. Default: lips.",
        values=DRIVEN,
    ),
]
Seed = Annotated[
    int, EXPRESSION.number("--seed", "Same seed, same video.", *LIMITS["seed"], whole=True)
]
Steps = Annotated[
    int | None,
    EXPRESSION.number(
        "--steps",
        "Steps of the solver; default the model's, 7 of mini's and 10 of moda's.",
        *LIMITS["steps"],
        whole=True,
    ),
]
FullFrame = Annotated[
    bool,
    VIDEO.switch("--full-frame/--crop", "The whole portrait, or the crop round the face."),
]
Size = Annotated[
    int | None,
    VIDEO.number(
        "--size",
        "Longer side in pixels, even. Default: the portrait's, at most 1280.",
        *LIMITS["size"],
        whole=True,
    ),
]
Aspect = Annotated[
    str | None,
    VIDEO.text(
        "--aspect",
        "W:H",
        f"{' '.join(ASPECTS)}: cut round the face, extended where the head would be cut.",
        values=ASPECTS,
    ),
]
Fps = Annotated[
    float | None,
    VIDEO.number(
        "--fps", "Frames per second. Default: 25, or those of a video as PORTRAIT.", *LIMITS["fps"]
    ),
]
Codec = Annotated[
    str | None,
    VIDEO.text(
        "--codec",
        "CODEC",
        "h264 hevc vp9 av1 prores (4444), or h264_nvenc hevc_nvenc av1_nvenc on an NVIDIA GPU."
        " Default: the container's usual one.",
        values=(*CODEC_NAMES, *CODEC_ALIASES),
    ),
]
Crf = Annotated[
    int | None,
    VIDEO.number("--crf", "Quality; smaller is better.", *LIMITS["crf"], whole=True),
]
Sound = Annotated[bool, VIDEO.switch("--audio/--no-audio", "Put the sound in the video.")]
Subtitles = Annotated[Path | None, VIDEO.text("--subtitles", "FILE", "Subtitles, as SRT.")]
SubtitlesAs = Annotated[
    str,
    VIDEO.choice(
        "--subtitles-as", "HOW", SUBTITLES_AS, "Drawn into the picture, or a track to switch on."
    ),
]
Label = Annotated[
    str | None,
    VIDEO.text("--label", "TEXT", "Write this into the upper left corner, such as AI-generated."),
]
Font = Annotated[
    Path | None,
    VIDEO.text("--font", "FILE", "Font of both. Default: one that has their characters."),
]
Provenance = Annotated[
    bool,
    VIDEO.switch(
        "--provenance/--no-provenance",
        "Say in the file that it is AI-generated, and how; `moda info` reads it.",
    ),
]
C2pa = Annotated[
    str | None,
    VIDEO.text(
        "--c2pa",
        "CERT,KEY",
        "Sign that with this certificate chain and key, in PEM (.mp4 .mov .gif).",
    ),
]
SaveMotion = Annotated[
    Path | None, ALSO.text("--save-motion", "FILE", "The motion, as safetensors.")
]
SaveTimeline = Annotated[
    Path | None,
    ALSO.text("--save-timeline", "FILE", "The timeline, as .toml .json or .csv, to be edited."),
]
Plot = Annotated[
    Path | None, ALSO.text("--plot", "FILE", "The motion's curves under the waveform, as PNG.")
]
Preview = Annotated[Path | None, ALSO.text("--preview", "FILE", "A contact sheet, as PNG.")]
ShowLandmarks = Annotated[
    Path | None,
    ALSO.text("--show-landmarks", "FILE", "The portrait with the face points drawn in."),
]
SaveCrop = Annotated[
    Path | None, ALSO.text("--save-crop", "FILE", "The crop of the face that the networks see.")
]
Check = Annotated[
    bool,
    ALSO.switch("--check", "A verdict: decode and judge the finished file; exit 1 if it fails."),
]
MinSync = Annotated[
    float,
    ALSO.number("--min-sync", "Least correlation of mouth and sound for --check.", -1, 1),
]
Model = Annotated[
    str,
    MACHINE.text(
        "--model",
        "MODEL",
        "auto, mini (bundled), moda (official), or a directory of a training.",
        values=("auto", "mini", "moda"),
    ),
]
Renderer = Annotated[
    str,
    MACHINE.choice(
        "--renderer", "NAME", RENDERERS, "Who draws the frames; auto is the model's own."
    ),
]
Dtype = Annotated[
    str,
    MACHINE.choice(
        "--dtype",
        "TYPE",
        DTYPES,
        "Precision of LivePortrait's networks; auto is float16 on CUDA.",
    ),
]
Compile = Annotated[
    bool,
    MACHINE.switch(
        "--compile", "Compile LivePortrait's networks: a slow first run, faster ones after it."
    ),
]
Jobs = Annotated[
    Path | None,
    BATCH.text("--jobs", "FILE", "A .csv or .jsonl of jobs, a column an option; - is stdin."),
]
Product = Annotated[bool, BATCH.switch("--product", "Every portrait with every speech.")]
Workers = Annotated[
    int | None,
    BATCH.number("--workers", "Processes, on each GPU or in all. Default: 1.", 1, 256, whole=True),
]
Batch = Annotated[
    int | None,
    BATCH.number(
        "--batch",
        "Clips whose motion a process samples side by side. Default: 8 on a GPU, 1 on a CPU.",
        1,
        64,
        whole=True,
    ),
]
Gpus = Annotated[str | None, BATCH.text("--gpus", "LIST", "all, or numbers such as 0,2.")]
Ray = Annotated[str | None, BATCH.text("--ray", "ADDRESS", "Run on this Ray cluster.")]
Shard = Annotated[str, BATCH.text("--shard", "I/N", "Every N-th job, I from 0.")]
RetryFailed = Annotated[bool, BATCH.switch("--retry-failed", "Failed jobs again.")]
Strict = Annotated[bool, BATCH.switch("--strict", "Do not start if an input is unusable.")]
