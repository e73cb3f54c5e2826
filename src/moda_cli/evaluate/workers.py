"""`--workers` and `--ray`: other processes look at clips, into the cache results are made from."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from moda_cli.device import device_name, use_threads
from moda_cli.errors import UsageError
from moda_cli.evaluate.cache import Cache
from moda_cli.evaluate.catalogue import select_metrics
from moda_cli.evaluate.evaluation import Evaluation
from moda_cli.evaluate.inputs import Inputs, Pair
from moda_cli.evaluate.protocol import Protocol
from moda_cli.files import Row, with_absolute_paths
from moda_cli.jobs.processes import Event, OnProgress, Work, check_space
from moda_cli.jobs.workforce import Workforce


@dataclass(frozen=True, slots=True)
class Looker:
    """Makes the function that looks at pairs of clips, once a process."""

    metrics: tuple[str, ...]
    protocol: Protocol
    cache: Path
    reference_row: bool

    def __call__(self, device: str, threads: int) -> Work:
        """Raises WeightsError."""
        use_threads(threads)
        selection, cache = select_metrics(self.metrics, self.protocol), Cache(self.cache)
        evaluation = Evaluation(
            Inputs([]), selection, self.protocol, cache, torch.device(device), self.reference_row
        )

        def look(pair: Pair, following: Sequence[Pair], on_progress: OnProgress) -> Row:
            unseen = [str(path) for path in files(pair) if not path.is_file()]
            alone = replace(
                evaluation,
                inputs=Inputs([pair]),
                on_look=lambda done, total, _: on_progress(done, total),
            )
            opened, _ = alone.run()
            keys = [key for item in opened for key in item.keys.values()]
            return {"unseen": unseen, "keys": keys, "device": device_name(evaluation.device)}

        return look


def fill_cache(
    evaluation: Evaluation, workers: int, ray: str | None, device: str
) -> tuple[dict[str, str], list[str]]:
    """Fill the cache of an evaluation where it lacks something.

    Returns the clips that crash, with the reason, and where the others ran. ray: address of a
    cluster whose machines share the clips and the cache. Raises UsageError where they do not,
    WeightsError, DeviceError.
    """
    given = evaluation.inputs.pairs
    with ThreadPoolExecutor() as pool:
        seen = pool.map(evaluation.is_seen, given)
        new = (pair for pair, known in zip(given, seen, strict=True) if not known)
    pairs = [with_absolute_paths(pair) for pair in new]
    looker = Looker(
        tuple(metric.name for metric in evaluation.metrics),
        evaluation.protocol,
        evaluation.cache.folder.absolute(),
        evaluation.reference_row,
    )
    workforce = Workforce([device] * workers, isolated=True, ray=ray)
    events = workforce.execute(pairs, looker)
    crashed: dict[str, str] = {}
    devices: set[str] = set()
    over = 0
    with closing(events):
        for event in events:
            if event.kind not in ("done", "failed"):
                continue
            pair = pairs[event.task]
            if event.kind == "done":
                check_shared(pair, event, evaluation.cache)
                devices.add(event.row["device"])
            else:
                check_space(pair.id, event)
                crashed[pair.id] = event.row["error"]
            over += 1
            if evaluation.on_look:
                evaluation.on_look(over, len(pairs), pair.id)
    return crashed, sorted(devices)


def check_shared(pair: Pair, event: Event, cache: Cache) -> None:
    """Raises UsageError where a machine sees other files than this one."""
    hint = "the clips and --output must be in folders that all machines share"
    for path in files(pair):
        if str(path) in event.row["unseen"] and path.is_file():
            raise UsageError(f"{event.worker} does not see {path}", hint=hint)
    if not all(cache.has(key) for key in event.row["keys"]):
        raise UsageError(f"what {event.worker} measured is not seen in {cache.folder}", hint=hint)


def files(pair: Pair) -> list[Path]:
    return [path for path in (pair.generated, pair.reference, pair.portrait) if path]
