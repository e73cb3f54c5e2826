"""The synthetic speech-and-motion corpus the bundled model learns from.

`moda extract --synthetic 4 -o OUT` makes it; it needs espeak-ng, flite and festival.
"""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.random import Generator

from moda_cli.config import EMOTIONS, FPS, NO_EMOTION, SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.data.feature_files import INDEX, write_clip
from moda_cli.data.synthetic.behaviour import jaw_offset, perform
from moda_cli.data.synthetic.text import LANGUAGES, sentence
from moda_cli.data.synthetic.visemes import LABIAL, OPEN, Phone, lips, to_visemes
from moda_cli.data.synthetic.voices import Request, Speech, Voice, synthesise
from moda_cli.data.synthetic.world import VOICE_RMS, recorded
from moda_cli.files import Row, read_rows, sha256_of_json, write_rows
from moda_cli.media.waves import Wave
from moda_cli.motion import MOTION_DIM, POSE, SCALE, TRANSLATION, encode, encode_gaze
from moda_cli.owner import owned
from moda_cli.speech.logmel import log_mel

NEUTRAL_EXPRESSION = {  # LivePortrait's neutral expression, eyes open and mouth closed
    (7, "x"): -0.00054, (7, "y"): 0.00263, (14, "x"): -0.00083, (14, "y"): -0.0018,
    (17, "x"): -0.00064, (17, "y"): -0.00117, (19, "y"): -0.02, (19, "z"): -0.00255,
    (20, "y"): 0.00563, (20, "z"): 0.00273, (11, "y"): -0.004, (15, "y"): -0.004,
}  # fmt: skip
NEUTRAL_SCALE = 1.2865  # the mean of the released model's training motion
NEUTRAL_TRANSLATION = (-0.01335, 0.09995, 0.0)

CLIP_S = (3.4, 10.0)  # a training window is 3.2 s
MEAN_CLIP_S = 6.6
PLAIN_SHARE = 0.45  # of clips without an emotion
WORDLESS_SHARE = 0.14  # in which nobody speaks, whatever else is heard
SILENT_SHARE = 0.25  # of these, where nothing is heard
LONG_PAUSE_SHARE = 0.2  # of clips with a pause in which a background alone is heard
CHUNK = 24  # clips per festival process
CHUNKS = ".chunks"  # rows of the chunks that are written, until all are

ENGINE_SHARES = {"flite": 0.45, "festival": 0.2, "espeak": 0.35}
TRAIN_VOICES = {"flite": ("slt", "awb"), "festival": ("ked_diphone", "slt_hts")}
TEST_VOICES = (Voice("flite", "rms"), Voice("festival", "kal_diphone"))
ENGLISH_SHARE = 0.29  # of espeak's clips: 75 % of all
ENGLISH = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbclan")
VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "klatt", "klatt2",
    "klatt3", "Alicia", "Andrea", "Andy", "Annie", "Gene", "Lee", "Michael", "Mike", "adam",
    "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward",
    "grandma", "grandpa", "iven", "john", "linda", "marcelo", "max", "michel", "miguel", "pablo",
    "paul", "pedro", "rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a clip that is decided before it is spoken."""

    name: str
    test: bool
    emotion: int
    requests: tuple[Request, ...]
    pauses: tuple[float, ...]  # before each sentence, and after the last
    seed: tuple[int, int]


def neutral_motion() -> torch.Tensor:
    """The resting frame (70) float32 that all synthetic motion is relative to."""
    motion = torch.zeros(MOTION_DIM)
    for (keypoint, axis), value in NEUTRAL_EXPRESSION.items():
        motion[3 * keypoint + "xyz".index(axis)] = value
    motion[SCALE] = NEUTRAL_SCALE
    motion[TRANSLATION] = torch.tensor(NEUTRAL_TRANSLATION)
    return motion


OnClip = Callable[[int, int], None]  # clips made, of how many


@dataclass(frozen=True, slots=True)
class Made:
    """What a corpus holds."""

    clips: int
    hours: float


def make_corpus(
    out: Path, hours: float, seed: int, workers: int = 1, on_clip: OnClip | None = None
) -> Made:
    """Write feature clips and `index.jsonl` to `out`: about `hours` of training speech, plus tests.

    A clip file holds motion (T, 70) f32, kp (63) f32, audio (T, 4, 80) f16 and emotion (8) f32, one
    hot, or all zero where none is asked for. Test clips have their wave beside them. The same
    arguments give the same corpus for any number of workers, and a run that was stopped goes on.
    on_clip(clips made, of how many).

    Raises InputError when a synthesiser is missing, UsageError where `out` cannot be written or
    another process writes it.
    """
    plans = [*train_plans(round(hours * 3600 / MEAN_CLIP_S), seed), *test_plans(hours, seed)]
    chunks = [plans[i : i + CHUNK] for i in range(0, len(plans), CHUNK)]
    spawn = multiprocessing.get_context("spawn")  # torch does not survive a fork
    rows: list[Row] = []
    with owned(out), ProcessPoolExecutor(workers, spawn, _begin_worker) as pool:
        (out / CHUNKS).mkdir(exist_ok=True)
        for written in pool.map(write_clips, chunks, [out] * len(chunks)):
            rows += written
            if on_clip:
                on_clip(len(rows), len(plans))
        write_rows(out / INDEX, rows)
        shutil.rmtree(out / CHUNKS)
    return Made(len(rows), sum(row["frames"] for row in rows) / FPS / 3600)


def _begin_worker() -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the main process ends this one
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def train_plans(count: int, seed: int) -> Iterable[Plan]:
    """Plans of training clips: mixed engines, voices, languages and emotions."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        emotion = NO_EMOTION if rng.random() < PLAIN_SHARE else int(rng.integers(NO_EMOTION))
        if rng.random() < WORDLESS_SHARE:
            pauses = (float(rng.uniform(*CLIP_S)),)
            yield Plan(f"train_{number:05d}", False, emotion, (), pauses, (seed, number))
        else:
            voice = _draw_voice(rng)
            yield _spoken_plan(f"train_{number:05d}", False, emotion, voice, (seed, number), rng)


def test_plans(hours: float, seed: int) -> Iterable[Plan]:
    """Plans of test clips: the held-out voices and sentences, every emotion equally often."""
    count = min(7, max(1, round(7 * hours))) * len(EMOTIONS)
    for offset, voice in enumerate(TEST_VOICES):
        for number in range(count):
            stream = (seed, 1_000_000 * (offset + 1) + number)
            rng = np.random.default_rng(stream)
            name = f"test_{voice.name}_{number:02d}"
            yield _spoken_plan(name, True, number % len(EMOTIONS), voice, stream, rng)


def _draw_voice(rng: Generator) -> Voice:
    engine = rng.choice(list(ENGINE_SHARES), p=list(ENGINE_SHARES.values()))
    if engine == "flite":
        return Voice("flite", str(rng.choice(TRAIN_VOICES["flite"])))
    if engine == "festival":
        return Voice("festival", str(rng.choice(TRAIN_VOICES["festival"])))
    english = rng.random() < ENGLISH_SHARE
    language = "en" if english else str(rng.choice(LANGUAGES[1:]))
    accent = str(rng.choice(ENGLISH)) if english else language
    return Voice("espeak", f"{accent}+{rng.choice(VARIANTS)}", language)


def _spoken_plan(
    name: str, test: bool, emotion: int, voice: Voice, seed: tuple[int, int], rng: Generator
) -> Plan:
    count = int(rng.choice((1, 2, 3), p=(0.25, 0.45, 0.3)))
    rate, pitch = float(rng.uniform(0.85, 1.2)), float(rng.uniform(0.85, 1.2))
    size = 1.0 if test else float(rng.uniform(0.92, 1.1))
    texts = [sentence(voice.language, rng, test) for _ in range(count)]
    pauses = rng.uniform(0.2, 1.2, count + 1)
    pauses[0], pauses[-1] = rng.uniform(0.12, 1.0), rng.uniform(0.0, 1.0)
    if rng.random() < (0.08 if test else LONG_PAUSE_SHARE):
        pauses[rng.integers(count + 1)] += rng.uniform(1.0, 2.5)
    requests = tuple(Request(voice, text, rate, pitch, size) for text in texts)
    return Plan(name, test, emotion, requests, tuple(map(float, pauses)), seed)


def write_clips(plans: Sequence[Plan], out: Path) -> list[Row]:
    """Speak and write clips, if no earlier run has; their rows of the index."""
    record = out / CHUNKS / f"{sha256_of_json([asdict(plan) for plan in plans])}.jsonl"
    if not record.is_file():
        speeches = iter(synthesise([request for plan in plans for request in plan.requests]))
        spoken = [[next(speeches) for _ in plan.requests] for plan in plans]
        others = [
            speech.wave
            for plan, own in zip(plans, spoken, strict=True)
            for speech in own
            if not plan.test
        ]
        made = [
            _write_clip(plan, own, others, out) for plan, own in zip(plans, spoken, strict=True)
        ]
        write_rows(record, made)
    return read_rows(record)


def _write_clip(plan: Plan, speeches: Sequence[Speech], others: Sequence[Wave], out: Path) -> Row:
    """others: what training's speakers say, who may be heard around."""
    rng = np.random.default_rng((*plan.seed, 1))
    wave, phones, texts = join(plan, speeches)
    num_frames = len(wave) // SAMPLES_PER_FRAME
    intensity = float(rng.uniform(0.8, 1.1))
    mouth = lips(phones, num_frames, jaw_offset(plan.emotion, intensity))
    articulators, gaze, pose = perform(mouth, phones, wave, plan.emotion, intensity, rng)
    neutral = neutral_motion()
    motion = neutral.repeat(num_frames, 1)
    motion[:, :63] += encode(torch.from_numpy(articulators))
    motion[:, :63] += encode_gaze(torch.from_numpy(gaze))
    motion[:, POSE] = torch.from_numpy(pose)
    silent = not plan.requests and rng.random() < SILENT_SHARE
    recording = wave if plan.test or silent else recorded(wave, others, rng)
    emotion = torch.zeros(len(EMOTIONS))
    emotion[plan.emotion] = 1
    digest = write_clip(
        out / f"{plan.name}.safetensors",
        motion,
        torch.zeros(63),
        log_mel(recording),
        emotion[:NO_EMOTION].clone(),
    )
    if plan.test:
        soundfile.write(out / f"{plan.name}.wav", recording, SAMPLE_RATE)
    voice = plan.requests[0].voice if plan.requests else None
    return {
        "clip": plan.name,
        "source": f"{voice.engine}:{voice.name}" if voice else "silence",
        "speaker": voice.name if voice else "nobody",
        "split": "test" if plan.test else "train",
        "text": " ".join(texts),
        "start": 0,
        "end": len(wave) / SAMPLE_RATE,
        "frames": num_frames,
        "sha256": digest,
        "options": {"audio": "logmel", "fps": FPS, "seed": plan.seed[0]},
        "emotion": EMOTIONS[plan.emotion],
        "phones": [[name, round(start, 3), round(end, 3)] for name, start, end in phones],
        "labial": [[round(p.start, 3), round(p.end, 3)] for p in phones if p.symbol == LABIAL],
        "open": [[round(p.start, 3), round(p.end, 3)] for p in phones if p.symbol in OPEN],
    }


def join(plan: Plan, speeches: Sequence[Speech]) -> tuple[Wave, list[Phone], list[str]]:
    """One wave (N,), whole frames long, its viseme-class phones without gaps, and what it says.

    Sentences that would pass 10 s are left out, except the first, which is cut.
    """
    longest = round(CLIP_S[1] * SAMPLE_RATE)
    pieces: list[Wave] = []
    phones: list[Phone] = []
    texts: list[str] = []
    length = 0
    for request, speech, pause in zip(plan.requests, speeches, plan.pauses[:-1], strict=True):
        wave, spoken = _trimmed(speech, request.voice.ipa)
        gap = round(pause * SAMPLE_RATE)
        if pieces and length + gap + len(wave) > longest:
            break
        start = (length + gap) / SAMPLE_RATE
        pieces += [np.zeros(gap, np.float32), wave]
        phones += [Phone(name, a + start, b + start) for name, a, b in spoken]
        texts.append(request.text)
        length += gap + len(wave)
    length = max(length + int(plan.pauses[-1] * SAMPLE_RATE), round(CLIP_S[0] * SAMPLE_RATE))
    num_samples = min(length, longest) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
    joined = np.concatenate([*pieces, np.zeros(num_samples, np.float32)])[:num_samples]
    level = float(np.sqrt(np.mean(joined[joined != 0] ** 2))) if phones else 1.0
    joined *= VOICE_RMS / level
    return np.clip(joined, -0.99, 0.99), _filled(phones, num_samples / SAMPLE_RATE), texts


def _trimmed(speech: Speech, ipa: bool) -> tuple[Wave, list[Phone]]:
    """A sentence without the silence around it (60 ms are kept), faded at both ends."""
    phones = to_visemes(speech.phones, ipa)
    spoken = [phone for phone in phones if phone.symbol != "SIL"]
    begin = max(0.0, spoken[0].start - 0.06)
    wave = speech.wave[round(begin * SAMPLE_RATE) : round((spoken[-1].end + 0.06) * SAMPLE_RATE)]
    wave = wave.copy()
    ramp = np.linspace(0, 1, SAMPLE_RATE // 200, dtype=np.float32)
    wave[: len(ramp)] *= ramp
    wave[-len(ramp) :] *= ramp[::-1]
    return wave, [Phone(p.symbol, p.start - begin, p.end - begin) for p in spoken]


def _filled(phones: Sequence[Phone], end: float) -> list[Phone]:
    """The phones up to `end` with silence in the gaps."""
    filled: list[Phone] = []
    now = 0.0
    for phone in phones:
        if phone.start >= end:
            break
        if phone.start > now + 1e-4:
            filled.append(Phone("SIL", now, phone.start))
        filled.append(Phone(phone.symbol, phone.start, min(phone.end, end)))
        now = filled[-1].end
    if end > now + 1e-4:
        filled.append(Phone("SIL", now, end))
    return filled
