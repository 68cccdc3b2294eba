"""Whether every stage survives SIGKILL: the same figures afterwards, and nothing left behind.

    python experiments/kill_check.py [--kills 100] [--seed 0] [--stages train sweep ...] [--folder DIR]

Each stage (train, sweep, search, baseline, evaluate, merge, report) runs once undisturbed, timed. Then it is killed
with its whole process group at a random moment, again and again, and each time it is finished as a person would do it:
`resume` where a run has begun, else the same command. Every stage gets an equal share of the kills. What it comes to is
compared with the undisturbed run: estimates and outcomes of every report bit for bit, losses, weights. Every kill has
its own run folder and temporary folder and begins with a cache that is empty for every third kill.

Prints a row per kill. Exit status 1 where a figure differs, a command fails, or a temporary file or folder is left in
the run folder, in the cache or among the system's temporary files.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SETTINGS = (
    "data=simulated",
    "debug=smoke",
    "target=token",
    "lora.num_layers=1",
    "trainer.reuse_frozen_layers=true",
    "trainer.checkpoint_every_n_steps=1",
    "trainer.progress_bar=false",
)
CLOCK = ("queries_per_second", "fit_seconds", "provenance")
"""Keys of reports that depend on the clock, or on the command."""
PROCESSES = multiprocessing.get_context("forkserver")
"""Starts processes that have the heavy imports behind them already, so that kills hit the work."""
STAGES = ("train", "sweep", "search", "baseline", "evaluate", "merge", "report")
NEEDS_RUN = ("evaluate", "merge", "report")
"""Stages that start from a finished run."""


@dataclass(frozen=True)
class Place:
    """Where one run of a stage works: its output, the finished run it may start from, cache, temporary files."""

    output: Path
    run: Path
    cache: Path
    temporary: Path

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the commands."""
        return {"CAUSAL_LM_ROUTER_CACHE": str(self.cache), "TMPDIR": str(self.temporary), "WANDB_MODE": "disabled"}


def command_line(stage: str, place: Place) -> list[str]:
    """Return the command of a stage."""
    sweep = ["train", "-m", *SETTINGS, f"hydra.sweep.dir={place.output}", "sweep.report=false"]
    lines = {
        "train": ["train", *SETTINGS, f"run_dir={place.output}"],
        "sweep": [*sweep, "seed=0,1"],
        "search": [*sweep, "sweep=search", "hydra.sweeper.n_trials=2", "evaluation.every_n_steps=3"],
        "baseline": ["baseline", "baseline=knn_regression", "baseline.k=5", *SETTINGS[:2], f"run_dir={place.output}"],
        "evaluate": ["evaluate", f"run_dir={place.run}", f"output_dir={place.output}"],
        "merge": ["merge", f"run_dir={place.run}"],
        "report": ["report", str(place.run), "--output", str(place.output)],
    }
    return lines[stage]


def finish_line(stage: str, place: Place) -> list[str]:
    """Return what a person types after the kill: `resume` where a run has begun, else the same command."""
    if stage in ("train", "baseline") and (place.output / "config.yaml").is_file():
        return ["resume", f"run_dir={place.output}"]
    return command_line(stage, place)


def figures(stage: str, place: Place) -> dict[str, str]:
    """Return name -> content of everything that must be the same, without what depends on the clock."""
    if stage == "merge":
        folder, patterns = place.run, ["merged/*"]
    else:
        folder = place.output
        patterns = ["**/report.json", "**/outcomes.jsonl", "**/*.safetensors", "**/metrics.csv", "best.json", "*.csv"]
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if "checkpoints" not in path.parts})
    return {str(path.relative_to(folder)): content(path).replace(str(folder), "") for path in files}


def content(path: Path) -> str:
    """Return a file's content, or a hash of it; of a report all but what depends on the clock."""
    if path.name == "report.json":
        plain = json.loads(path.read_text(encoding="utf-8"))
        return json.dumps({key: value for key, value in plain.items() if key not in CLOCK}, sort_keys=True)
    if path.name == "metrics.csv":
        lines = path.read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if not any(key in line for key in CLOCK))
    return path.read_text() if path.name == "best.json" else hashlib.sha256(path.read_bytes()).hexdigest()


def leftovers(place: Place) -> list[str]:
    """Return the temporary files and folders that are left."""
    found = [path for root in (place.output, place.run, place.cache) for path in root.rglob(".*.tmp")]
    found += place.output.parent.glob(f".{place.output.name}*.tmp")
    found += [path for path in place.temporary.iterdir() if "causal-lm-router" in path.name or "vllm" in path.name]
    return sorted({path.name for path in found})


def run_command(arguments: Sequence[str], place: Place) -> None:
    """In a process of its own, at the head of a process group: run a command; what it prints goes to a file."""
    os.setsid()
    os.environ.update(place.environment())
    tempfile.tempdir = None
    with (place.temporary.parent / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = ["causal-lm-router", *arguments]
    from causal_lm_router.commands import cli

    cli.main()


def run(arguments: Sequence[str], place: Place, seconds: float | None = None) -> str | None:
    """Run a command to its end, or kill it after so many seconds. Return what it said where it failed."""
    process = PROCESSES.Process(target=run_command, args=(arguments, place))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        assert process.pid is not None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet, or is gone
            process.kill()
        process.join()
        return None
    return None if process.exitcode == 0 else (place.temporary.parent / "log").read_text()[-2000:]


def make_place(folder: Path, stage: str, name: str, finished: Path, cache: Path | None) -> Place:
    """Make the folders for one run of a stage, with a copy of the finished run where it needs one."""
    base = folder / f"{stage}_{name}"
    place = Place(base / "output", base / "run", cache or base / "cache", base / "tmp")
    place.temporary.mkdir(parents=True)
    place.cache.mkdir(exist_ok=True)
    if stage in NEEDS_RUN:
        shutil.copytree(finished, place.run)
    if stage == "merge":
        shutil.rmtree(place.run / "merged")
    return place


def check_stage(
    stage: str, folder: Path, finished: Path, shared_cache: Path, num_kills: int, rng: random.Random, deadline: float
) -> list[bool]:
    """Run a stage undisturbed, then kill it so often; return for each kill whether all was well."""
    whole = make_place(folder, stage, "whole", finished, shared_cache)
    start = time.perf_counter()
    if said := run(command_line(stage, whole), whole):
        raise SystemExit(f"{stage}: {said}")
    seconds, expected = time.perf_counter() - start, figures(stage, whole)
    print(f"{stage}: {seconds:.1f} s undisturbed, {len(expected)} files to compare", flush=True)
    verdicts = []
    for number in range(1, num_kills + 1):
        if time.time() > deadline:
            break
        cache = None if number % 3 == 0 else shared_cache
        place = make_place(folder, stage, str(number), finished, cache)
        moment = rng.uniform(0, seconds)
        run(command_line(stage, place), place, moment)
        before = leftovers(place)
        # A finished run is refused a second time.
        done = stage in ("train", "baseline") and (place.output / "report.json").is_file()
        said = None if done else run(finish_line(stage, place), place)
        found, after = figures(stage, place), leftovers(place)
        different = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
        verdicts.append(not said and not different and not after)
        shown = f"kill {number:>3} after {moment:5.1f} s{' (finished)' if done else ''}, left {before or 'nothing'}"
        print(f"  {shown}: {'good' if verdicts[-1] else (said, different, after)}", flush=True)
    return verdicts


def main() -> None:
    """Run the stages that the arguments name and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many kills in all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new kill after so many minutes")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), help="which stages")
    parser.add_argument("--folder", type=Path, help="where all is kept; default: a temporary folder")
    arguments = parser.parse_args()
    PROCESSES.set_forkserver_preload(["causal_lm_router.runs.train_run", "causal_lm_router.generation.transformers"])
    rng, verdicts = random.Random(arguments.seed), {}
    with tempfile.TemporaryDirectory(prefix="kill-check-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        shared = folder / "cache"
        shared.mkdir(exist_ok=True)
        finished = make_place(folder, "train", "finished", folder, shared)
        if said := run(command_line("train", finished), finished):
            raise SystemExit(said)
        share = -(-arguments.kills // len(arguments.stages))
        begin, last = time.time(), time.time() + 60 * arguments.minutes
        for number, stage in enumerate(arguments.stages, start=1):
            until = begin + (last - begin) * number / len(arguments.stages)
            verdicts[stage] = check_stage(stage, folder, finished.output, shared, share, rng, until)
    for stage, good in verdicts.items():
        print(f"{stage}: {sum(good)} of {len(good)} good")
    all_good = [one for good in verdicts.values() for one in good]
    print(f"{sum(all_good)} of {len(all_good)} kills: the undisturbed figures, and nothing left")
    raise SystemExit(0 if all(all_good) else 1)


if __name__ == "__main__":
    main()
