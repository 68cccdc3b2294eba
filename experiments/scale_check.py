"""What 1,000 to 1,000,000 queries cost: seconds and peak memory of preparing, encoding and routing them.

    python experiments/scale_check.py [--sizes 1000 10000 100000 1000000] [--json results.json]

The queries are simulated, of those tasks that have enough different questions. Each size has two processes of its own:
one prepares the data (reads, splits, audits, labels) and encodes its training queries, the other is the command `route`
over a file of all queries. Both use the tiny base model. The first row has 63 queries: the libraries alone.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASKS = "chain_sum,complex_arithmetic,letter_counting,syllogism,time_intervals,maze,family_relationships"
"""Tasks with more than 40,000 different questions at every level."""
SIZES = (1_000, 10_000, 100_000, 1_000_000)
FEWEST = 63
SETTINGS = ["data=simulated", "debug=smoke", f"data.simulated.tasks=[{TASKS}]"]
STAGES = ("prepare", "encode", "route")


def main() -> None:
    """Measure every size, print a line for each, and write the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        num_queries, folder, stages = arguments.child
        prepare_and_encode(int(num_queries), Path(folder), stages.split(","))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAUSAL_LM_ROUTER_CACHE"] = f"{folder}/cache"
        run = Path(folder) / "run"
        if "route" in arguments.stages:
            command("train", *SETTINGS, "data.simulated.num_queries=100", f"run_dir={run}")
        print(f"{'queries':>10}" + "".join(f"{stage:>12} s{'CPU s':>10}{'GiB':>8}" for stage in arguments.stages))
        for num_queries in (FEWEST, *arguments.sizes):
            rows.append(measure(num_queries, Path(folder), run, arguments.stages))
            print(describe(rows[-1], arguments.stages), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(num_queries: int, folder: Path, run: Path, stages: list[str]) -> dict[str, float]:
    """Return the seconds and the peak memory (GiB) of every stage with so many queries."""
    child = [sys.executable, __file__, "--child", str(num_queries), str(folder), ",".join(stages)]
    subprocess.run(child, check=True, stdout=sys.stderr)
    found = {"queries": num_queries, **json.loads((folder / "found.json").read_text(encoding="utf-8"))}
    if "route" in stages:
        output = folder / "routes.jsonl"
        start = time.perf_counter()
        usage = command("route", f"run_dir={run}", f"input={folder / 'queries.jsonl'}", f"output={output}")
        found |= {"route_s": time.perf_counter() - start, "route_cpu_s": usage.ru_utime + usage.ru_stime}
        found["route_gib"] = usage.ru_maxrss / 2**20
        with output.open("rb") as routes:
            assert sum(1 for _ in routes) == num_queries
    return found


def command(name: str, *overrides: str) -> resource.struct_rusage:
    """Run a command in a process of its own and return what it used."""
    words = [sys.executable, "-m", f"causal_lm_router.commands.{name}", *overrides]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with status {process.returncode}")
    return usage


def prepare_and_encode(num_queries: int, folder: Path, stages: list[str]) -> None:
    """Take the queries through what a training run does with them, and write what it cost and a file of the queries."""
    from causal_lm_router.config.compose import compose_config
    from causal_lm_router.data.data_warnings import warn_of_data
    from causal_lm_router.data.prepared import prepare_data
    from causal_lm_router.files.writing import cache_dir
    from causal_lm_router.runs.session import make_encoder
    from causal_lm_router.runs.workbench import Workbench
    from causal_lm_router.training.rows import encode_examples

    found = {}
    config = compose_config([*SETTINGS, f"data.simulated.num_queries={num_queries}", f"run_dir={folder}"])
    start, worked = time.perf_counter(), time.process_time()
    data = prepare_data(config.data)
    # A run tells its data by this hash, and looks at it for what is suspicious.
    assert data.content_hash
    warn_of_data(data.splits)
    found |= costs("prepare", start, worked)
    if "encode" in stages:
        _, encoder = make_encoder(config, data.candidate_names, data.best_single, Workbench())
        start, worked = time.perf_counter(), time.process_time()
        encode_examples(data.train, data.labels, encoder, cache_dir())
        found |= costs("encode", start, worked)
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for split in (data.splits.train, data.splits.validation, data.splits.test):
            for example in split:
                file.write(json.dumps({"query": example.query, "query_id": example.query_id}) + "\n")
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


def costs(stage: str, start: float, worked: float) -> dict[str, float]:
    """Return the seconds and the processor seconds since these times, and the peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    return {f"{stage}_s": seconds, f"{stage}_cpu_s": cpu, f"{stage}_gib": peak}


def describe(row: dict[str, float], stages: list[str]) -> str:
    """Return a line of the table."""
    cells = (
        f"{row[f'{stage}_s']:>14,.1f}{row[f'{stage}_cpu_s']:>10,.1f}{row[f'{stage}_gib']:>8.2f}" for stage in stages
    )
    return f"{row['queries']:>10,}" + "".join(cells)


if __name__ == "__main__":
    main()
