"""Keeps the tests of `make check` light: one without the marker `slow` may not train, nor start an engine or a process.

`make check` runs the tests without that marker. The rule holds in every run, so a test that breaks it fails at once.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

SLOW_FIXTURES = {"smoke_run", "fit_tiny", "finished", "forkserver"}
"""Fixtures that train, or start processes: tests that use them are marked by themselves."""
STARTS_A_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
"""Events of Python's audit hooks."""

_light_test: str | None = None


class NotLightError(AssertionError):
    """A test without the marker `slow` did something slow."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{_light_test} {what}: mark it with pytest.mark.slow")


def pytest_configure(config: pytest.Config) -> None:
    """Watch every start of a process from here on."""
    sys.addaudithook(_watch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures train or start processes."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Hold the body of a light test to the rule; fixtures for the whole session may do slow things before."""
    global _light_test
    is_light = item.get_closest_marker("slow") is None and item.get_closest_marker("gpu") is None
    _light_test = item.nodeid if is_light else None
    _guard_training()
    try:
        return (yield)
    finally:
        _light_test = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    # The hook sees the events of all threads; a forked child inherits it and must not fail there.
    if event in STARTS_A_PROCESS and _light_test is not None and os.getpid() == _PID:
        raise NotLightError("starts a process")


_PID = os.getpid()


def _guard_training() -> None:
    """Have Lightning's and vLLM's entry points look at the rule, once they are imported."""
    for module, owner, name, what in (
        ("pytorch_lightning", "Trainer", "fit", "trains"),
        ("vllm", "LLM", "__init__", "starts an engine"),
    ):
        # Read from the module's own names: asking vLLM for `LLM` would import all of it.
        cls = vars(sys.modules[module]).get(owner) if module in sys.modules else None
        original = getattr(cls, name) if cls is not None else None
        if original is None or hasattr(original, "is_guarded"):
            continue

        def guarded(*arguments: Any, _original: Any = original, _what: str = what, **options: Any) -> Any:
            if _light_test is not None:
                raise NotLightError(_what)
            return _original(*arguments, **options)

        guarded.is_guarded = True  # type: ignore[attr-defined]
        setattr(cls, name, guarded)
