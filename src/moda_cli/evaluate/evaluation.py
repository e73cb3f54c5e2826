"""Every metric of every clip, looked at once and kept, and the distances between the two sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from moda_cli import media
from moda_cli.config import FPS
from moda_cli.device import one_thread
from moda_cli.errors import InputError
from moda_cli.evaluate.bootstrap import Estimate, of_clips
from moda_cli.evaluate.cache import Arrays, Cache, KeptOnly, content_key
from moda_cli.evaluate.catalogue import Measure, Metric, Selection
from moda_cli.evaluate.inputs import Inputs, LeftOut, Pair
from moda_cli.evaluate.prepared import PreparedClip, open_generated, open_reference
from moda_cli.evaluate.protocol import Protocol
from moda_cli.files import sha256_of
from moda_cli.media.pictures import Picture
from moda_cli.metrics.frechet import Gaussian, frechet_distance, pool
from moda_cli.weights import store

SIDES = ("generated", "reference")
ALIKE = 0.9  # of the longer of two clips that are compared: below that it is said

OnLook = Callable[[int, int, str], None]  # looks done, of, what at


@dataclass(slots=True)
class Opened:
    """A pair whose clips are there and cut to the same length."""

    pair: Pair
    clips: dict[str, PreparedClip]  # by side
    keys: dict[tuple[str, str], str] = field(default_factory=dict)  # by metric and side
    note: str = ""

    def portrait(self) -> Picture | None:
        """The picture that the clip was made from."""
        if self.pair.portrait:
            return media.read_image(self.pair.portrait)
        clip = self.clips.get("reference")
        return next(islice(clip, 1)) if clip else None

    def portrait_key(self) -> str:
        if self.pair.portrait:
            path = self.pair.portrait
            return sha256_of(path) if path.is_file() else f"no file {path}"
        clip = self.clips.get("reference")
        return f"first frame of {clip.key}" if clip else ""


@dataclass(slots=True)
class Evaluation:
    """One run over a set of clips."""

    inputs: Inputs
    selection: Selection
    protocol: Protocol
    cache: Cache
    device: torch.device
    reference_row: bool = True  # measure the real clips, too, by the metrics that need no pair
    on_look: OnLook | None = None
    crashed: Mapping[str, str] = field(default_factory=dict)  # clip -> why it is not looked at
    left_out: list[LeftOut] = field(default_factory=list)
    _loaded: dict[str, Measure] = field(default_factory=dict)

    def run(self) -> tuple[list[Opened], dict[tuple[str, str, str], Arrays]]:
        """The pairs that could be opened, and what was seen by clip, metric and side."""
        pairs = [pair for pair in self.inputs.pairs if pair.id not in self.crashed]
        self.left_out = list(self.inputs.left_out)
        self.left_out += [LeftOut(name, reason) for name, reason in self.crashed.items()]
        seen: dict[tuple[str, str, str], Arrays] = {}
        opened = []
        total, done = len(pairs) * sum(len(self.sides(m)) for m in self.metrics), 0
        for item in self._ahead(pairs):
            if isinstance(item, LeftOut):
                self.left_out.append(item)
                continue
            opened.append(item)
            for metric in self.metrics:
                for side in self.sides(metric):
                    done += 1
                    if side not in item.clips:
                        continue
                    if self.on_look:
                        self.on_look(done, total, f"{item.pair.id} {metric.name}")
                    try:
                        arrays = self._look(metric, item, side)
                    except InputError as error:
                        row = LeftOut(item.pair.id, str(error), metric.name, side)
                        self.left_out.append(row)
                    else:
                        seen[item.pair.id, metric.name, side] = arrays
                        self.left_out += [
                            LeftOut(item.pair.id, why, column, side)
                            for column, why in metric.reasons(arrays).items()
                        ]
            for clip in item.clips.values():
                clip.release()
        return opened, seen

    @property
    def metrics(self) -> list[Metric]:
        return self.selection.metrics

    def sides(self, metric: Metric) -> Sequence[str]:
        return SIDES if metric.distance or self.reference_row else SIDES[:1]

    def _ahead(self, pairs: Sequence[Pair]) -> Iterator[Opened | LeftOut]:
        """Pairs, each decoded in a thread while the one before is measured."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = [pool.submit(self._open, pair) for pair in pairs[:1]]
            for following in [*pairs[1:], None]:
                if not waiting:
                    return
                item = waiting.pop().result()
                if following is not None:
                    waiting.append(pool.submit(self._open, following))
                yield item

    def is_seen(self, pair: Pair) -> bool:
        """Whether the cache holds all that a look at this pair would put there."""
        try:
            item = replace(self, cache=KeptOnly(self.cache.folder))._identified(pair)
        except LookupError:
            return False
        return isinstance(item, LeftOut) or all(map(self.cache.has, item.keys.values()))

    def _open(self, pair: Pair) -> Opened | LeftOut:
        item = self._identified(pair)
        if isinstance(item, Opened):
            for side, clip in item.clips.items():
                keys = (key for (_, looked), key in item.keys.items() if looked == side)
                if not all(self.cache.has(key) for key in keys):
                    clip.hold()
        return item

    def _identified(self, pair: Pair) -> Opened | LeftOut:
        side = "generated"
        try:
            clips = {"generated": open_generated(pair.generated, self.protocol)}
            counts = [clips["generated"].count(self.cache)]
            if pair.reference:
                side = "reference"
                real = open_reference(pair.reference, pair.window, self.protocol, self.cache)
                clips["reference"] = real
                counts.append(real.frames or 0)
        except InputError as error:
            return LeftOut(pair.id, str(error), side=side)
        for clip in clips.values():
            clip.frames = min(counts)
        opened = Opened(pair, clips, note=unlike_lengths(pair.id, counts))
        for metric in self.metrics:
            for side in self.sides(metric):
                if side in clips:
                    opened.keys[metric.name, side] = self._key(metric, opened, side)
        return opened

    def _key(self, metric: Metric, item: Opened, side: str) -> str:
        return content_key(
            clip=item.clips[side].key,
            metric=metric.name,
            version=metric.version,
            setting=metric.setting(self.protocol),
            weights=[weights_hash(name) for name in metric.components],
            portrait=item.portrait_key() if metric.pictured else "",
        )

    def _look(self, metric: Metric, item: Opened, side: str) -> Arrays:
        def compute() -> Arrays:
            if metric.name not in self._loaded:
                self._loaded[metric.name] = metric.load(self.protocol, self.device)
            portrait = item.portrait() if metric.pictured else None
            with one_thread(opencv=False):
                return self._loaded[metric.name](item.clips[side], portrait)

        return self.cache.keep(item.keys[metric.name, side], compute)

    def distance(self, metric: Metric, pairs: Sequence[Opened]) -> dict[str, Any]:
        """Between the sets of generated and real clips that both could be looked at.

        Raises InputError for sets too small.
        """
        keys = [[pair.keys[metric.name, side] for pair in pairs] for side in SIDES]
        key = content_key(
            distance=keys,
            resamples=self.protocol.bootstrap_distances,
            seed=self.protocol.seed,
        )

        def compute() -> Arrays:
            sets = [
                [self._gaussian(self.cache.get(key)) for key in side_keys] for side_keys in keys
            ]

            def between(chosen: Sequence[int]) -> float:
                first, second = (pool(side[k] for k in chosen) for side in sets)
                return frechet_distance(first, second)

            protocol = self.protocol
            count = protocol.bootstrap_distances
            estimate = of_clips(between, len(pairs), count, protocol.seed, centred=True)
            samples = sum(part.count for part in sets[0])
            row = [estimate.value, estimate.low, estimate.high, samples]
            return {"estimate": np.array(row, np.float64)}

        value, low, high, samples = self.cache.keep(key, compute)["estimate"].tolist()
        estimate = Estimate(value, low, high, len(pairs))
        return {**asdict(estimate), "samples": int(samples)}

    def _gaussian(self, arrays: Arrays | None) -> Gaussian:
        assert arrays is not None  # it was seen a moment ago
        return Gaussian.of(torch.from_numpy(arrays["features"]).to(self.device))


def unlike_lengths(name: str, counts: Sequence[int]) -> str:
    """What is to be said of a clip and its reference, whose frames these are."""
    if min(counts) >= ALIKE * max(counts):
        return ""
    made, real = (f"{count / FPS:.2f} s" for count in counts)
    return f"{name}: the clip lasts {made}, its reference {real}; the longer's rest is not compared"


def weights_hash(component: str) -> str:
    return store.read_lock()[component].path_sha256
