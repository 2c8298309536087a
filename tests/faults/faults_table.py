"""Inject all faults, and print the table of docs/reliability.md; `make faults` runs this.

python tests/faults/faults_table.py --runs 10 --write docs/reliability.md
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import scenarios
from bench import Verdict
from fault_evaluator import KINDS
from postgres import PASSWORD, programs, running_server

from spaces import InputError

MODES = ("generational", "async")
BEGIN, END = "<!-- faults -->", "<!-- end of faults -->"
HEAD = (
    "| Fault | Mode | Scored by | Runs | Injected | Evaluations | Lost | Repeated | Again | Failed | Ends with |\n"
    "|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|"
)
ENDS = {"generational": "the uninterrupted table", "async": "a complete table"}


def line(row):
    """Return a row as Markdown."""
    end = "; ".join(row.wrong) or ENDS[row.mode]
    note = f" ({row.notes})" if row.notes else ""
    totals = [row.total(name) for name in ("evaluations", "lost", "repeated", "again", "failed")]
    cells = [row.fault + note, row.mode, row.where, row.runs, row.injected, *totals, end]
    return "| " + " | ".join(map(str, cells)) + " |"


def every(folder, server, runs, kills, seconds):
    """Return all scenarios as functions without arguments, the longest first."""
    references = scenarios.References(folder / "references")

    def of(scenario, name, *given, **named):
        return partial(scenario, folder / name, references, *given, **named)

    found = [
        of(scenarios.driver_kills, "kills", mode, workers, runs=runs, kills=kills)
        for mode, workers in (("generational", None), ("async", 2))
    ]
    for mode in MODES:
        found += [of(scenarios.bad_architectures, "bad", mode, kind) for kind in KINDS]
        found.append(of(scenarios.bad_architectures, "bad", mode, "all", share=0.3))
        found += [of(scenarios.worker_kills, "workers", mode), of(scenarios.nodes, "nodes", mode)]
        found.append(of(scenarios.interrupts, "interrupts", mode, 2))
        found.append(of(scenarios.full_disk, "disk", mode))
        found.append(of(scenarios.second_driver, "second", mode))
        found += [of(scenarios.joined, "joined", mode, dies=dies) for dies in (None, "other", "leader")]
        if server is not None:
            away = partial(of, scenarios.outage, "away", server, mode, password=PASSWORD)
            found += [away(seconds=seconds), away(killed=True)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="searches per mode whose driver is killed")
    parser.add_argument("--kills", type=int, default=5, help="kills of each")
    parser.add_argument("--outage", type=float, default=20.0, help="seconds without a store")
    parser.add_argument("--jobs", type=int, default=1, help="scenarios at a time")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args()
    began, ready = time.monotonic(), programs() is not None and find_spec("psycopg2") is not None
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        running_server() if ready else nullcontext() as server,
    ):
        # An outage is of the one server, and Ray starts clusters in the main thread only: these take turns here.
        tasks = every(Path(folder), server, options.runs, options.kills, options.outage)
        lone = [task for task in tasks if task.func in (scenarios.outage, scenarios.nodes)]
        with ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(attempt, [task for task in tasks if task not in lone]))
        rows = [row for row in [*rows, *map(attempt, lone)] if row is not None]
    rows.sort(key=lambda row: MODES.index(row.mode))
    minutes = (time.monotonic() - began) / 60
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    jobs = f" with `FAULTS='--jobs {options.jobs}'`" if options.jobs > 1 else ""
    table = "\n".join([HEAD, *map(line, rows), "", f"`make faults` on {where}: {minutes:.0f} minutes{jobs}."])
    if not ready:
        table += " PostgreSQL's server is not installed here: its rows are missing."
    sys.stdout.write(table + "\n")
    if options.write:
        page = options.write.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        options.write.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    sys.exit(any(row.wrong for row in rows))


def attempt(task):
    """Run a scenario, tell how it ended, and return its row; one that breaks is a row too."""
    try:
        row = task()
    except (AssertionError, OSError, LookupError, ValueError, InputError, subprocess.SubprocessError) as error:
        verdict = Verdict(0, 0, 0, 0, 0, [f"{type(error).__name__}: {str(error).splitlines()[0]}"])
        mode = next(word for word in task.args if word in MODES)
        row = scenarios.Row(task.func.__name__, mode, "", 1, 1, [verdict], 0.0)
    if row is not None:
        sys.stderr.write(f"{row.fault}, {row.mode}: {row.seconds:.0f} s, {row.wrong or 'as it should be'}\n")
    return row


if __name__ == "__main__":
    main()
