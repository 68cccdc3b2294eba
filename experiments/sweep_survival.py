"""Whether sweeps survive kills, give the same results under every launcher, and how much sharing a process saves.

    python experiments/sweep_survival.py [--kills 10] [--launchers joblib ray ...] [--separate] [--folder DIR]

Twelve jobs (2 learning rates x 2 ranks x 3 seeds; --swept and --overrides say otherwise) run
- once undisturbed, one after another in one process: the reference, timed;
- once killed with SIGKILL at random moments, --kills times, and started again each time;
- once under each of the launchers;
- with --separate once more as single runs, each in a process of its own, timed.

Compared with the reference, job by job: every result of the reports on test and validation, every route, the training
losses and the adapter, bit for bit. Exit status 1 where anything differs, a job ran again after completion, or a file
of a finished job was written again.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from causal_lm_router.evaluation.stored import read_facts, read_report, read_rows
from causal_lm_router.runs.job_log import JobState, read_events, read_statuses
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.runs.tracking import read_metrics

SWEPT = ["optim.learning_rate=0.001,0.003", "lora.lora_r=8,16", "seed=0,1,2"]
OVERRIDES = [
    "experiment=quickstart",
    "data.simulated.num_queries=160",
    "data.max_train_queries=64",
    "data.validation_fraction=0.2",
    "data.test_fraction=0.35",
    "prompt.max_length=56",
    "trainer.batch_size=4",
    "trainer.checkpoint_every_n_steps=2",
    "trainer.num_threads=2",
    "trainer.progress_bar=false",
    "lora.merge_lora=false",
    "tracking.wandb.mode=offline",
]
# submitit's local executor starts all it is given at once, 3.5 GB each.
AT_A_TIME = "hydra.sweeper.max_batch_size=2"
CLOCK = ("queries_per_second", "fit_seconds", "provenance")


def main() -> None:
    """Run what the arguments ask for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how many times the sweep is killed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--launchers", nargs="*", default=[], help="Hydra launchers to run the sweep under")
    parser.add_argument("--separate", action="store_true", help="time the jobs as single runs too")
    parser.add_argument("--folder", type=Path, help="where the sweeps are kept; default: a temporary folder")
    parser.add_argument("--swept", nargs="*", default=SWEPT, help="swept keys")
    parser.add_argument("--overrides", nargs="*", default=OVERRIDES, help="overrides that all jobs share")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep-survival-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        same = [check(arguments, folder)]
    raise SystemExit(0 if all(same) else 1)


def check(arguments: argparse.Namespace, folder: Path) -> bool:
    """Run the reference and everything beside it; return whether all agree."""
    line = [*arguments.overrides, *arguments.swept]
    memory: list[float] = []
    seconds = run_sweep(folder, "reference", line, memory)
    reference = SweepFolder(folder / "reference")
    print(f"reference: {count(reference)} in {seconds:.0f} s in one process", flush=True)
    print(f"its memory after each job, MiB: {' '.join(f'{mib:.0f}' for mib in memory)}", flush=True)
    if arguments.separate:
        apart = run_separately(folder / "separate", arguments.overrides, arguments.swept)
        print(f"separate processes: {apart:.0f} s; one process takes {seconds / apart:.2f} of that", flush=True)
    good = []
    if arguments.kills:
        good.append(run_killed(folder, line, seconds, arguments.kills, random.Random(arguments.seed)))
        good.append(compare("killed", reference, SweepFolder(folder / "killed")))
    for launcher in arguments.launchers:
        took = run_sweep(folder, launcher, [*line, f"hydra/launcher={launcher}", AT_A_TIME])
        print(f"{launcher}: {took:.0f} s", flush=True)
        good.append(compare(launcher, reference, SweepFolder(folder / launcher)))
    return all(good)


def sweep_command(folder: Path, name: str, overrides: list[str]) -> list[str]:
    """Return the command of one sweep into `folder/name`."""
    place = [f"sweep.name={name}", f"hydra.sweep.dir={folder / name}"]
    return [sys.executable, "-m", "causal_lm_router.commands.train", "-m", *overrides, *place]


def run_sweep(folder: Path, name: str, overrides: list[str], memory: list[float] | None = None) -> float:
    """Run a sweep to its end and return the seconds it took; end with what it printed where it failed.

    `memory` gets what the process has in RAM (MiB) as each job ends.
    """
    start = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(sweep_command(folder, name, overrides), stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(0.2)
            num_done = sum(event.state is JobState.done for event in read_events(SweepFolder(folder / name)))
            if memory is not None and num_done > len(memory):
                memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)
    if process.returncode != 0:
        raise SystemExit((folder / f"{name}.log").read_text()[-5000:])
    return time.perf_counter() - start


def run_killed(folder: Path, overrides: list[str], seconds: float, num_kills: int, rng: random.Random) -> bool:
    """Start the sweep, kill it, start it again, until it was killed so often; then let it come to its end.

    A moment is drawn between 0 and what is left of the reference's time shared out among the kills that are left.
    """
    sweep = SweepFolder(folder / "killed")
    stamps: dict[str, int] = {}
    overwritten = []
    for number in range(1, num_kills + 1):
        moment = rng.uniform(5.0, max(10.0, 2 * seconds / num_kills))
        with (folder / "killed.log").open("a") as log:
            command = sweep_command(folder, "killed", overrides)
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            was_killed = wait_and_kill(process, moment)
        overwritten += changed(stamps, finished_files(sweep))
        stamps = finished_files(sweep)
        print(f"kill {number}: after {moment:.0f} s, {count(sweep)}" if was_killed else "it had ended", flush=True)
    run_sweep(folder, "killed", overrides)
    overwritten += changed(stamps, finished_files(sweep))
    again = ran_after_completion(sweep)
    print(f"in the end: {count(sweep)}; ran again after completion: {again or 'none'}; ", end="")
    print(f"files of finished jobs written again: {overwritten or 'none'}", flush=True)
    return not again and not overwritten


def wait_and_kill(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Return True after killing the process group, False where the process ended before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def count(sweep: SweepFolder) -> str:
    """Return how many jobs of a sweep are in which state."""
    states = Counter(status.state.value for status in read_statuses(sweep).values())
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "no job yet"


def finished_files(sweep: SweepFolder) -> dict[str, int]:
    """Return when each file of the finished jobs was last written (ns)."""
    folders = [path.parent for path in sweep.path.glob("*/report.json")]
    return {str(path): path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*") if path.is_file()}


def changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return the files that were written again or are gone; locks and the log of W&B's client are not results."""
    kept = [path for path in before if not path.endswith((".lock", "debug-core.log"))]
    return [path for path in kept if after.get(path) != before[path]]


def ran_after_completion(sweep: SweepFolder) -> list[str]:
    """Return the jobs that began to run after they were done."""
    done: set[str] = set()
    again = []
    for event in read_events(sweep):
        if event.state is JobState.running and event.job in done:
            again.append(event.job)
        if event.state is JobState.done:
            done.add(event.job)
    return again


def compare(name: str, reference: SweepFolder, other: SweepFolder) -> bool:
    """Print how many jobs of a sweep have the results of the reference, bit for bit."""
    jobs = list(read_statuses(reference))
    same = [outcome(reference.run_dir(job)) == outcome(other.run_dir(job)) for job in jobs]
    print(f"{name}: {sum(same)} of {len(jobs)} jobs equal to the reference", flush=True)
    return all(same) and set(jobs) == set(read_statuses(other))


def outcome(run_dir: Path) -> dict[str, Any]:
    """Return all that a run found out, without what depends on the clock."""
    folder = RunFolder(run_dir)
    if not folder.report.is_file():
        return {"unfinished": str(run_dir)}
    found: dict[str, Any] = {"adapter": [path.read_bytes() for path in sorted(folder.weights.glob("*.safetensors"))]}
    for part in (folder.path, folder.validation):
        report = read_report(part).to_dict() | read_facts(part)
        found[part.name if part != folder.path else "test"] = (
            {key: value for key, value in report.items() if key not in CLOCK},
            [(row["query_id"], row["generation"], row["route"]) for row in read_rows(part)],
        )
    rows = [row for row in read_metrics(folder.metrics) if row.name == "train/loss"]
    return found | {"losses": [(row.step, row.value.hex()) for row in rows]}


def run_separately(folder: Path, overrides: list[str], swept: list[str]) -> float:
    """Run every combination as a single run in a process of its own; return the seconds they took together."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [item.split("=")[0] for item in swept]
    start = time.perf_counter()
    for number, values in enumerate(itertools.product(*(item.split("=")[1].split(",") for item in swept))):
        chosen = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        command = [
            sys.executable,
            "-m",
            "causal_lm_router.commands.train",
            *overrides,
            *chosen,
            f"run_dir={folder / str(number)}",
        ]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
