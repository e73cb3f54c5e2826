"""Frames drawn in threads side by side, and given in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2

from moda_cli.media.pictures import Picture

_MOST_WORKERS = 4  # frames drawn at once; what waits to be taken costs memory

Task = Callable[[], Picture]


def side_by_side(tasks: Iterable[Task]) -> Iterator[Picture]:
    """What each task draws; a few are taken and begun ahead."""
    workers = min(cv2.getNumThreads(), _MOST_WORKERS)
    if workers < 2:
        yield from (task() for task in tasks)
        return
    with ThreadPoolExecutor(workers) as pool:  # OpenCV and NumPy let go of the interpreter
        pending: deque[Future[Picture]] = deque()
        try:
            for task in tasks:
                pending.append(pool.submit(task))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for frame in pending:
                frame.cancel()
