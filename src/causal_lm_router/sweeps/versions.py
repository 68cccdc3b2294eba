"""Versions of the code that a job runs and of the data it reads: within one sweep both must stay the same."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from causal_lm_router.config import DataConfig, TrainConfig
from causal_lm_router.config.own_code import find_source, own_functions
from causal_lm_router.config.plain import config_dict
from causal_lm_router.files.source_code import code_alone
from causal_lm_router.runs.job_log import JobEvent, JobState, read_events, read_statuses
from causal_lm_router.runs.provenance import code_hash, library_versions
from causal_lm_router.runs.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from causal_lm_router.data.prepared import PreparedData


def code_version() -> str:
    """Return a hash of this package's code, followed by the versions of the main libraries that are installed.

    Comments and docstrings do not count: mending one leaves a sweep that is under way as it is.
    """
    return " ".join([code_hash(), *(f"{name}={version}" for name, version in library_versions().items())])


def function_versions(config: TrainConfig) -> dict[str, str]:
    """Return name -> hash of the source file, for every function of the user's that the config names."""
    versions = {}
    for name in own_functions(config_dict(config)).values():
        source = find_source(name)
        code = code_alone(source.read_text(encoding="utf-8")) if source else ""
        versions[name] = hashlib.sha256(code.encode()).hexdigest()[:12]
    return versions


def data_version(config: DataConfig, data: "PreparedData") -> dict[str, str]:
    """Return hash of the data config -> hash of what was read: queries, scores, costs and labels of every split."""
    key = hashlib.sha256(json.dumps(config_dict(config), sort_keys=True).encode())
    return {key.hexdigest()[:12]: data.content_hash}


def check_unmixed(sweep: SweepFolder, code: str, data: dict[str, str], allow_mixed: bool) -> list[str]:
    """Return what differs from earlier jobs of the sweep, a sentence for each difference.

    Raises:
        ValueError: something differs and `allow_mixed` is false.
    """
    found = _differences(_events_that_count(sweep), code, data)
    if found and not allow_mixed:
        raise ValueError(
            f"sweep {sweep.path}: {' and '.join(found)}, so its jobs would not compare; choose another sweep.name, or "
            "mix them with sweep.allow_mixed=true"
        )
    return found


def _events_that_count(sweep: SweepFolder) -> list[JobEvent]:
    """The events of jobs with a result or a checkpoint. A job that failed before either restricts no later job."""
    count = {
        job
        for job, status in read_statuses(sweep).items()
        if status.state is not JobState.failed or any(sweep.run_dir(job).glob("checkpoints/step_*"))
    }
    return [event for event in read_events(sweep) if event.job in count]


def _differences(events: Sequence[JobEvent], code: str, data: dict[str, str]) -> list[str]:
    found = []
    if others := sorted({event.code for event in events if event.code} - {code}):
        found.append(f"earlier jobs ran code {others[-1]}, this is {code}")
    known = {(key, version) for event in events for key, version in (event.data or {}).items()}
    if any(key in data and data[key] != version for key, version in known):
        found.append("the content of the data, or a function that the config names, has changed since earlier jobs")
    return found
