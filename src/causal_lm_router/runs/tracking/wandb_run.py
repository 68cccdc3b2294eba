"""One W&B run for one job: it never fails the job, and holds it up for seconds at most when the server is away."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router.runs.tracking.wandb_mode import client_settings, why_no_answer

if TYPE_CHECKING:
    import wandb

STEP = "trainer/global_step"
"""The x axis of every metric: the optimizer step, under the name Lightning's W&B logger gives it."""

# A server that goes away delays a job by a probe, a wait for an upload and the closing: about 10 s together.
FINISH_TIMEOUT_S = 7.0
"""Longest wait for the server when a run closes."""
_PROBE_TIMEOUT_S = 2.0  # one question whether the server answers
_PATIENCE_S = 2.0  # waiting for a server that does not answer, over the whole job
_UPLOAD_WAIT_S = 1  # between two looks at an upload

_logger = logging.getLogger(__name__)


class WandbRun:
    """Records into an open W&B run.

    W&B's client sends metrics in the background, but asks the server before it takes a table or an artifact. While the
    server does not answer these are left out, with a warning; all attempts together take a few seconds. When W&B's
    helper process dies, recording ends with a warning and the job goes on.
    """

    def __init__(self, run: "wandb.Run", is_online: bool) -> None:
        self.run = run
        self.is_online = is_online
        self.is_lost = False
        """True once W&B's helper process has died."""
        self._patience_s = _PATIENCE_S
        self._uploads: list[wandb.Artifact] = []

    @property
    def folder(self) -> Path:
        """The run's folder, which `wandb sync` takes."""
        return Path(self.run.dir).parent

    def record(self, what: str, action: Callable[[], object], *, asks_server: bool = False) -> None:
        """Do `action`, which records something; warn where W&B cannot take it. `what` names it in the warning.

        Raises:
            Exception: as `action`, unless W&B's helper process is gone or, with `asks_server`, the server
                refuses.
        """
        if self.is_lost:
            return
        if asks_server and not self._server_answers():
            _logger.warning("W&B does not get %s: its server does not answer. The run folder holds it.", what)
            return
        start = time.monotonic()
        try:
            action()
        except helper_errors() as error:
            self.is_lost = True
            _logger.warning("W&B gets nothing more of this job: its helper process is gone (%r).", error)
        except _refusals() as error:
            # Without a question to the server the error is about what we passed in.
            if not asks_server:
                raise
            # Refusing may have taken long: a slow server uses up the patience as a silent one does.
            self._patience_s -= time.monotonic() - start
            _logger.warning("W&B did not take %s: %s", what, error)

    def log_table(self, key: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Record `rows` as a table whose columns are all their keys; values other than scalars become JSON."""
        import wandb

        # The keys of all rows in order of appearance: rows may lack some.
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = wandb.Table(columns=[*names], allow_mixed_types=True)
        for row in rows:
            table.add_data(*(_cell(row.get(name)) for name in names))
        self.record(f"the table {key}", lambda: self.run.log({key: table, STEP: step}), asks_server=True)

    def log_confusion(self, key: str, cells: Sequence[tuple[str, str, int]], step: int) -> None:
        """Record cells of (label, route, number of queries) as W&B's confusion matrix chart and its table."""
        import wandb

        names = ["Actual", "Predicted", "nPredictions"]  # the fields of W&B's own chart
        table = wandb.Table(columns=[*names])
        for cell in cells:
            table.add_data(*cell)
        fields = {name: name for name in names}
        chart = wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": key})
        self.record(f"the chart {key}", lambda: self.run.log({key: chart, STEP: step}), asks_server=True)

    def log_image(self, key: str, path: Path, step: int) -> None:
        """Record a drawing."""
        import wandb

        self.record(f"the drawing {key}", lambda: self.run.log({key: wandb.Image(str(path)), STEP: step}))

    def log_folder(self, name: str, kind: str, folder: Path, *, copied: bool = False) -> None:
        """Record a folder as an artifact.

        Its files are read where they lie, so they must stay as they are, unless they are `copied` for W&B.
        """
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        artifact.add_dir(str(folder), policy="mutable" if copied else "immutable", skip_cache=not copied)
        self.record(f"the artifact {name}", lambda: self._log_artifact(artifact), asks_server=True)

    def log_file(self, path: Path, base_dir: Path) -> None:
        """Record a file under its path below `base_dir`."""
        self.record(
            f"the file {path.name}",
            lambda: self.run.save(str(path), base_path=str(base_dir), policy="now", glob=False),
        )

    def close(self, exit_code: int) -> None:
        """Close the run. A run that ends well first waits for its artifacts for as long as the server answers."""
        if exit_code == 0:
            self._wait_for_uploads()
        # A failed run is closed at once: the error should not wait for uploads.
        try:
            self.run.finish(exit_code=exit_code)
        except TimeoutError:
            text = "W&B did not take everything within %g s. To upload the rest: wandb sync --include-online %s"
            _logger.warning(text, FINISH_TIMEOUT_S, self.folder)
        except helper_errors() as error:
            self.is_lost = True
            _logger.warning("The W&B run in %s was not closed: W&B's helper process is gone (%r).", self.folder, error)

    def _log_artifact(self, artifact: "wandb.Artifact") -> None:
        self.run.log_artifact(artifact)
        # Offline nothing is uploaded, so there is nothing to wait for.
        if self.is_online:
            self._uploads.append(artifact)

    def _wait_for_uploads(self) -> None:
        for artifact in self._uploads:
            # In short waits, so that a server that goes away meanwhile is noticed.
            while not self.is_lost and not _is_uploaded(artifact):
                if not self._server_answers():
                    return

    def _server_answers(self) -> bool:
        if not self.is_online:
            return True
        if self._patience_s <= 0:
            return False
        # Only a server that does not answer costs patience.
        start = time.monotonic()
        if why_no_answer(client_settings(), _PROBE_TIMEOUT_S) is None:
            return True
        self._patience_s -= time.monotonic() - start
        return False


def helper_errors() -> tuple[type[Exception], ...]:
    """Return what W&B's client raises once its helper process has died."""
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    return (ConnectionError, HandleAbandonedError, MailboxClosedError)


def _is_uploaded(artifact: "wandb.Artifact") -> bool:
    """Wait a while for the upload; return False while it goes on. A failed upload counts as over."""
    from wandb.sdk.artifacts.exceptions import WaitTimeoutError

    try:
        artifact.wait(timeout=_UPLOAD_WAIT_S)
    except WaitTimeoutError:
        return False
    except (*helper_errors(), *_refusals()) as error:
        _logger.warning("W&B did not take the artifact %s: %s", artifact.name, error)
    return True


def _cell(value: Any) -> Any:
    # W&B's tables take scalars; a text shows everything else.
    if value is None or isinstance(value, bool | int | float):
        return value
    # A StrEnum becomes plain text, for W&B would show the name of its class.
    return str(value) if isinstance(value, str) else json.dumps(value, default=str)


def _refusals() -> tuple[type[Exception], ...]:
    """Return what W&B's client raises when the server refuses, fails or sends an answer that it cannot read."""
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    return (wandb.errors.Error, WandbApiFailedError, ValueError)
