"""The bodies of the commands that work on run folders: train, resume, evaluate and merge."""

import logging
import time
from pathlib import Path

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.plain import dump_config
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.files import write_text
from causal_lm_router.runs.finish import finish_run
from causal_lm_router.runs.fit import fit
from causal_lm_router.runs.run_folder import (
    RunFolder,
    check_folder,
)
from causal_lm_router.runs.run_tracking import open_run_tracking
from causal_lm_router.runs.session import (
    OnEvaluation,
    Session,
    check_splits,
    is_first_process,
    open_session,
)
from causal_lm_router.runs.workbench import Workbench

logger = logging.getLogger(__name__)


def train_router(
    config: TrainConfig, workbench: Workbench | None = None, on_evaluation: OnEvaluation | None = None
) -> RoutingReport | None:
    """Train, evaluate and leave a run folder; go on where an interrupted run of the same config stopped.

    Jobs of one process share a workbench; without one the run has its own, closed at its end. `on_evaluation` sees
    every evaluation during training. Returns the final report; None on processes other than the first.

    Raises:
        ValueError: the folder holds a finished run, or one of another config.
        PrunedError: `on_evaluation` ended the run.
    """
    folder = RunFolder(Path(config.run_dir))
    check_folder(folder, config)
    with open_session(config, folder, workbench, on_evaluation) as session:
        check_splits(config.evaluation, session.data)
        if is_first_process() and not folder.config.is_file():
            folder.path.mkdir(parents=True, exist_ok=True)
            write_text(folder.config, dump_config(config))
        return _train(session)


def _train(session: Session) -> RoutingReport | None:
    folder = session.folder
    with open_run_tracking(session.config, session.folder) as tracking:
        start = time.perf_counter()
        if not folder.weights.is_dir():
            fit(session, tracking)
        if not is_first_process():
            return None
        return finish_run(session, tracking, time.perf_counter() - start)
