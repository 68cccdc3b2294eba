"""The folder of a single run: one that nobody else works in, chosen before Hydra writes anything there."""

import contextlib
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from causal_lm_router.commands.errors import fail
from causal_lm_router.config.plain import config_dict
from causal_lm_router.config.resolve import resolve_job
from causal_lm_router.files.locks import hold_folder, is_first_process, make_new_folder
from causal_lm_router.files.writing import refuse_links
from causal_lm_router.runs.run_folder import RunFolder, check_folder

held = contextlib.ExitStack()
"""The lock of the folder of the command that is running; the command releases it at its end."""


class OwnFolder(Callback):
    """Hydra calls it before it makes the folder of a single run; the jobs of a sweep lock theirs themselves.

    A folder named by the time is a new one: of two runs that start within a second, one gets another name. Where
    somebody works in the folder, another or finished run lies there, or links lead out of it, the command ends with one
    line and has touched nothing.
    """

    def on_run_start(self, config: DictConfig, **_arguments: Any) -> None:
        """Take the folder; the further processes of a distributed run leave it to the first one."""
        folder = Path(config.hydra.run.dir)
        # Commands that write no folder stay where they are.
        if not is_first_process() or folder == Path():
            return
        key = "output_dir" if "output_dir" in config else "run_dir"
        # Hydra makes warnings of the errors of a callback, but lets a command leave.
        try:
            if "${now:" in str(OmegaConf.to_container(config, resolve=False)[key]):  # type: ignore[index, call-overload]
                folder = make_new_folder(folder)
                with read_write(config), open_dict(config):
                    config[key] = str(folder)
            # Even the lock would be written through a link.
            refuse_links(folder)
            held.enter_context(hold_folder(folder, key))
            run = RunFolder(folder)
            if key == "run_dir" and (run.config.is_file() or run.report.is_file()):
                check_folder(run, config_dict(resolve_job(config)))
        except (ValueError, OSError) as error:
            fail(str(error))
