r"""What jobs that run one after another in one process cost, and whether its memory grows.

    python experiments/sweep_reuse.py [--jobs 50] [--overrides debug=smoke ...]

The jobs share a workbench and differ in seed and rank; the last one is the first again. Prints seconds and resident
memory after each job, the slope of the memory from job 10 on, and whether every value of the last job equals the
first's (losses bit for bit, every outcome, the adapter's bytes). Exit status 1 where any differs.

With SmolLM2-135M and vLLM:
    python experiments/sweep_reuse.py --jobs 12 --overrides experiment=quickstart tracking=local lora.merge_lora=false \
        trainer.num_threads=2 data.simulated.num_queries=150 data.max_train_queries=32 \
        data.validation_fraction=0.1 data.test_fraction=0.2
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the commands do; read when torch is imported

import numpy as np

from causal_lm_router.config.compose import compose_config
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.tracking import read_metrics
from causal_lm_router.runs.train_run import train_router
from causal_lm_router.runs.workbench import Workbench

OVERRIDES = ["data=simulated", "debug=smoke", "lora.merge_lora=false"]
RANKS = (4, 8, 16)
WARM_UP = 10  # jobs that the slope leaves out


def main() -> None:
    """Run the jobs and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50, help="how many jobs to run, at least 2")
    parser.add_argument("--overrides", nargs="*", default=OVERRIDES, help="overrides of `causal-lm-router train`")
    arguments = parser.parse_args()
    print(f"before the first job: {resident_mib():.0f} MiB\n{'job':>4} {'seconds':>8} {'MiB':>7}", flush=True)
    memory = []
    with tempfile.TemporaryDirectory(prefix="sweep-reuse-") as temporary, Workbench() as workbench:
        folders = [RunFolder(Path(temporary) / str(number)) for number in range(1, arguments.jobs + 1)]
        for number, folder in enumerate(folders, start=1):
            seconds = run_job(folder, arguments.overrides, (number - 1) % (arguments.jobs - 1), workbench)
            memory.append(resident_mib())
            print(f"{number:>4} {seconds:>8.1f} {memory[-1]:>7.0f}", flush=True)
        is_same = results(folders[0]) == results(folders[-1])
    if len(memory) > WARM_UP + 1:
        slope = np.polyfit(np.arange(WARM_UP, len(memory) + 1), memory[WARM_UP - 1 :], 1)[0]
        print(f"memory from job {WARM_UP} to {len(memory)}: {slope:+.2f} MiB a job")
    print(f"the last job's values are the first's: {'yes' if is_same else 'NO'}")
    raise SystemExit(not is_same)


def run_job(folder: RunFolder, overrides: list[str], variant: int, workbench: Workbench) -> float:
    """Run a job with the seed and rank of a variant and return the seconds it took; what it prints is kept back."""
    varied = [f"seed={variant}", f"lora.lora_r={RANKS[variant % len(RANKS)]}", "trainer.progress_bar=false"]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        train_router(compose_config([*overrides, *varied, f"run_dir={folder.path}"]), workbench)
    return time.perf_counter() - start


def results(folder: RunFolder) -> list[object]:
    """Return every value of a run but how fast it was: metrics by step, outcomes, and the adapter's bytes."""
    rows = read_metrics(folder.metrics)
    values: list[object] = [
        (row.step, row.epoch, row.name, row.value.hex()) for row in rows if "per_second" not in row.name
    ]
    files = [
        folder.path / "outcomes.jsonl",
        folder.validation / "outcomes.jsonl",
        *folder.weights.glob("*.safetensors"),
    ]
    return values + [path.read_bytes() for path in files if path.is_file()]


def resident_mib() -> float:
    """Return the memory of this process that is in RAM, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
