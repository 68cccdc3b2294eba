"""The body of the `train` command, which `resume` and the jobs of a sweep share."""

import functools
import time
from pathlib import Path

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.plain import config_dict, stored_config
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.files.checksums import check_files, cut_to_checksum
from causal_lm_router.files.locks import is_first_process
from causal_lm_router.models.adapter import is_adapter
from causal_lm_router.runs.finish import finish_run
from causal_lm_router.runs.fit import fit
from causal_lm_router.runs.merge_run import merge_weights
from causal_lm_router.runs.provenance import write_config
from causal_lm_router.runs.run_folder import RunFolder, check_folder, own_run
from causal_lm_router.runs.session import (
    OnEvaluation,
    Session,
    check_splits,
    load_data,
    open_session,
)
from causal_lm_router.runs.start import log_start
from causal_lm_router.runs.tracking import Tracking, open_run_tracking
from causal_lm_router.runs.workbench import Workbench, open_workbench
from causal_lm_router.training.checkpoint import check_checkpoint, last_checkpoint


def train_router(
    config: TrainConfig, workbench: Workbench | None = None, on_evaluation: OnEvaluation | None = None
) -> RoutingReport | None:
    """Train, evaluate and leave a run folder; go on where an interrupted run of the same config stopped.

    Jobs of one process share a workbench; without one the run has its own, closed at its end. `on_evaluation` sees
    every evaluation during training. Returns the final report; None on processes other than the first.

    Raises:
        ValueError: the folder holds a finished run, or one of another config, or somebody else works there.
        PrunedError: `on_evaluation` ended the run.
    """
    folder = RunFolder(Path(config.run_dir))
    settings, text = config_dict(config), stored_config(config)
    with own_run(folder), open_workbench(workbench) as workbench:
        check_folder(folder, settings)
        _go_back_to_start(folder)
        data = load_data(config.data, workbench)
        check_splits(config.evaluation, data)
        with open_session(config, folder, data, workbench, on_evaluation) as session:
            # Everything fits together: only now is anything written.
            if is_first_process() and not folder.config.is_file():
                write_config(folder.config, text, config.data, data)
            if is_first_process():
                log_start(config, folder, data)
            with open_run_tracking(config, settings, folder) as tracking:
                start = time.perf_counter()
                # A run that was interrupted after its training only has its end left.
                if not folder.weights.is_dir():
                    fit(session, tracking)
                if not is_first_process():
                    return None
                return _finish(session, tracking, time.perf_counter() - start)


def _go_back_to_start(folder: RunFolder) -> None:
    """Compare what an interrupted run goes on from with its checksums, before anything is loaded.

    Where training is over, what an end that was interrupted has recorded goes: it is recorded again.
    """
    if folder.weights.is_dir():
        check_files(folder.weights)
        if is_first_process():
            cut_to_checksum(folder.metrics)
    elif checkpoint := last_checkpoint(folder.checkpoints):
        check_checkpoint(checkpoint)


def _finish(session: Session, tracking: Tracking, fit_seconds: float) -> RoutingReport:
    config, folder = session.config, session.folder
    if config.lora.merge_lora and is_adapter(folder.weights):
        merge_weights(config, folder, session.source)
    evaluate = functools.partial(session.evaluate, folder.weights, also=config.decoding.also)
    return finish_run(session.configured, folder, session.data, evaluate, tracking, fit_seconds, session.encoder)
