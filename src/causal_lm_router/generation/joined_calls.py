"""One engine for several threads: calls that come while one is being answered are answered together after it."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")
MAX_JOINED = 256
"""Queries of several calls that are answered together at most; a call is never parted."""


@dataclass(eq=False)
class _Call(Generic[Answer]):
    queries: Sequence[str]
    answers: Sequence[Answer] | None = None
    """One for each query, once there are any."""


class JoinedCalls(Generic[Answer]):
    """Calls `answer`, which returns an answer for each query in order, from one thread at a time.

    A batch takes less time than its queries one by one. And no thread waits much longer than for the batch that runs
    and its own, whichever thread a lock lets in next.
    """

    def __init__(self, answer: Callable[[Sequence[str]], Sequence[Answer]]) -> None:
        self._answer = answer
        self._turn = threading.Lock()
        self._waiting: deque[_Call[Answer]] = deque()

    def __call__(self, queries: Sequence[str]) -> Sequence[Answer]:
        """Return the answers to the queries; an error of `answer` goes to the thread that called it, to no other."""
        own = _Call[Answer](queries)
        self._waiting.append(own)
        with self._turn:
            # Another thread may have answered this call with its own.
            if own.answers is None:
                self._waiting.remove(own)
                self._answer_with_others(own)
        assert own.answers is not None, "the call was answered, or has raised"
        return own.answers

    def _answer_with_others(self, own: _Call[Answer]) -> None:
        calls = [own, *self._take_waiting(MAX_JOINED - len(own.queries))]
        try:
            answers = iter(self._answer([query for call in calls for query in call.queries]))
            for call in calls:
                call.answers = list(itertools.islice(answers, len(call.queries)))
        finally:
            # After an error the other threads try for themselves, in their order.
            self._waiting.extendleft(call for call in reversed(calls[1:]) if call.answers is None)

    def _take_waiting(self, max_queries: int) -> list[_Call[Answer]]:
        """Take out the calls that have waited longest, as many as have `max_queries` together."""
        calls: list[_Call[Answer]] = []
        while self._waiting and len(self._waiting[0].queries) <= max_queries:
            calls.append(self._waiting.popleft())
            max_queries -= len(calls[-1].queries)
        return calls
