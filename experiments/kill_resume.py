"""Whether killed and resumed runs train exactly as uninterrupted ones do.

    python experiments/kill_resume.py [--kills 10] [--seed 0] [--overrides debug=smoke trainer.num_epochs=3 ...]

One run goes through for reference. Then, for every kill, a fresh run of the same config gets SIGKILL at a random moment
of its training and is resumed to the end. Prints a row per kill: where it hit, whether the losses of all steps and the
adapter equal the reference's bit for bit, and how many checkpoints it left that cannot be read. Exit status 1 where any
differ or any cannot be read.

Bitwise equal losses need a fixed number of threads (`trainer.num_threads`).
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.tracking import read_metrics
from causal_lm_router.training.checkpoint import FolderCheckpointIO

OVERRIDES = [
    "data=simulated",
    "debug=smoke",
    "trainer.num_epochs=3",
    "data.simulated.num_queries=300",
    "evaluation.max_queries=20",
]
POLL_SECONDS = 0.002
COLUMNS = "{:>4} {:>8} {:>10} {:>5}  {:<20} {:>11} {:>10} {:>12} {:>13}"
TITLES = (
    "kill",
    "seconds",
    "after step",
    "epoch",
    "while",
    "checkpoints",
    "unreadable",
    "equal losses",
    "equal adapter",
)


@dataclass(frozen=True)
class Kill:
    """What a kill hit, what it left, and what became of the resumed run."""

    seconds: float
    step: int
    epoch: int
    phase: str
    num_checkpoints: int
    num_unreadable: int
    equal_losses: bool
    equal_adapter: bool


def main() -> None:
    """Run the reference and the kills, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how many runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--overrides", nargs="*", default=OVERRIDES, help="overrides of `causal-lm-router train`")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as temporary:
        reference = RunFolder(Path(temporary) / "reference")
        seconds = time_training(reference, arguments.overrides)
        print(f"reference: {len(losses(reference))} losses, {seconds:.1f} s of training", flush=True)
        print(COLUMNS.format(*TITLES), flush=True)
        kills = []
        for number in range(1, arguments.kills + 1):
            folder = RunFolder(Path(temporary) / f"kill_{number}")
            kills.append(kill_and_resume(folder, arguments.overrides, rng.uniform(0, seconds), reference))
            print_row(number, kills[-1])
    num_good = sum(kill.equal_losses and kill.equal_adapter and not kill.num_unreadable for kill in kills)
    print(f"{num_good} of {len(kills)} equal to the uninterrupted run")
    raise SystemExit(num_good < len(kills))


def start(command: str, folder: RunFolder, overrides: list[str]) -> subprocess.Popen[str]:
    """Start a command on a run folder, in a process group of its own; what it prints goes to a file beside it."""
    line = [sys.executable, "-m", f"causal_lm_router.{command}", *overrides, f"run_dir={folder.path}"]
    with open(f"{folder.path}_{command}.log", "w") as log:
        return subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str], folder: RunFolder) -> None:
    """Wait for a process; end with what it printed where it failed."""
    if process.wait() != 0:
        printed = "".join(path.read_text() for path in folder.path.parent.glob(f"{folder.path.name}_*.log"))
        raise SystemExit(f"{process.args}: status {process.returncode}\n{printed}")


def wait_until(path: Path, process: subprocess.Popen[str]) -> float:
    """Return the time at which a path is there or the process has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(POLL_SECONDS)
    return time.perf_counter()


def time_training(folder: RunFolder, overrides: list[str]) -> float:
    """Run to the end and return the seconds from the first metric to the trained weights."""
    process = start("train", folder, overrides)
    begin = wait_until(folder.metrics, process)
    end = wait_until(folder.weights, process)
    finish(process, folder)
    return end - begin


def kill_and_resume(folder: RunFolder, overrides: list[str], seconds: float, reference: RunFolder) -> Kill:
    """Kill a fresh run so many seconds after its first metric, resume it and compare."""
    process = start("train", folder, overrides)
    wait_until(folder.metrics, process)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    rows = [row for row in read_metrics(folder.metrics) if row.name == "train/loss"]
    step, epoch = (rows[-1].step, rows[-1].epoch or 0) if rows else (0, 0)
    phase = phase_of(folder)
    checkpoints = list(folder.checkpoints.glob("step_*.ckpt"))
    num_unreadable = sum(not is_readable(path) for path in checkpoints)
    if not folder.report.is_file():
        finish(start("resume", folder, []), folder)
    equal_losses = losses(folder) == losses(reference)
    equal_adapter = adapter(folder) == adapter(reference)
    return Kill(seconds, step, epoch, phase, len(checkpoints), num_unreadable, equal_losses, equal_adapter)


def phase_of(folder: RunFolder) -> str:
    """Return what the run was doing when it was killed, as far as its folder tells."""
    if folder.weights.is_dir():
        return "after training"
    if any(folder.checkpoints.glob(".*.tmp")):
        return "writing a checkpoint"
    if any(folder.path.glob(f".{folder.weights.name}.*.tmp")):
        return "writing the adapter"
    return "training"


def is_readable(checkpoint: Path) -> bool:
    """Return whether a checkpoint can be loaded whole."""
    try:
        state = FolderCheckpointIO().load_checkpoint(checkpoint)
    except (OSError, RuntimeError) as error:
        print(f"{checkpoint}: {error}")
        return False
    return {"state_dict", "optimizer_states", "global_step"} <= state.keys()


def losses(folder: RunFolder) -> list[tuple[int, int | None, str]]:
    """Return step, epoch and every bit of the training loss, of each logged step."""
    return [(row.step, row.epoch, row.value.hex()) for row in read_metrics(folder.metrics) if row.name == "train/loss"]


def adapter(folder: RunFolder) -> bytes:
    """Return the bytes of the trained weights."""
    return b"".join(path.read_bytes() for path in sorted(folder.weights.glob("*.safetensors")))


def print_row(number: int, kill: Kill) -> None:
    """Print a kill."""
    same = ["yes" if equal else "NO" for equal in (kill.equal_losses, kill.equal_adapter)]
    row = (f"{kill.seconds:.2f}", kill.step, kill.epoch, kill.phase, kill.num_checkpoints, kill.num_unreadable, *same)
    print(COLUMNS.format(number, *row), flush=True)


if __name__ == "__main__":
    main()
