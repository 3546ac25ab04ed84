"""What the scripts here share: timing a function and finding the packages."""

import importlib
import time
from collections.abc import Callable
from types import ModuleType


def package(name: str) -> tuple[ModuleType | None, str | None]:
    """The package, or None and why it does not load (a broken installation raises more than ImportError)."""
    try:
        return importlib.import_module(name), None
    except Exception as error:
        return None, f"{name}: {error}"


def seconds(work: Callable[[], object], repeats: int, warm_up: int = 2) -> list[float]:
    """Wall-clock seconds of every repeat, after runs that do not count."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times
