"""The journal of a search, study.journal: Optuna's file of trials, under a lock that a kill cannot leave behind."""

import os
from pathlib import Path

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from causal_lm_router.runs.sweep_folder import SweepFolder


class _JournalLock(BaseJournalFileLock):
    """Lock of the journal: the kernel frees it when its holder dies; the next holder removes a torn last line.

    Optuna's own locks stay for 30 seconds after a kill, and a line appended behind a torn one is lost.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_name(".study.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        content = self._journal.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(self._journal, content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def open_storage(sweep: SweepFolder) -> JournalStorage:
    """Return the storage of the folder's study; the file is made where it is missing."""
    return JournalStorage(JournalFileBackend(str(sweep.study), lock_obj=_JournalLock(sweep.study)))
