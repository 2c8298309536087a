"""Problems and baselines that the quality of search is measured on, and the script that does it."""

import gzip
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from search.baselines import BASELINES
from search.oracle import DEPTHS, EXPANSIONS, KERNELS, fit_oracle
from search.problems import CORRUPTED_POINTS, corrupted, ofa
from search.spaces import GeneSpace

from nas.contest import Task, run_task
from nas.evaluation import Evaluation
from nas.problem import ArchitectureProblem

ROOT = Path(__file__).parents[2]
REAL = os.environ.get("SPIKEFRONT_DATA")
real = pytest.mark.skipif(
    not REAL or not Path(REAL, "nas").is_dir(), reason="SPIKEFRONT_DATA names no folder with the real tables"
)


def block(kernel, expansion, width):
    return width * expansion * (kernel**2 + 20)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Logs of 400 random subnets whose MACs are a sum over blocks, and whose accuracy grows with them."""
    rng = np.random.default_rng(0)
    lines = ["run,eval_index,ks,e,d,r,params,macs,top1"]
    for _ in range(400):
        ks, e, d = rng.choice(KERNELS, 20), rng.choice(EXPANSIONS, 20), rng.choice(DEPTHS, 5)
        exists = (np.arange(4) < d[:, None]).ravel()
        macs = 1000 + sum(
            block(*values) for values in zip(ks[exists], e[exists], np.flatnonzero(exists) + 1, strict=True)
        )
        cells = [" ".join(map(str, values)) for values in (ks, e, d)]
        lines.append(f"toy,0,{','.join(cells)},224,0,{macs},{70 + macs / 20000}")
    folder = tmp_path_factory.mktemp("logs")
    (folder / "nas").mkdir()
    (folder / "nas" / "dynas_ofa_mbv3_search_logs.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


@pytest.fixture(scope="module")
def arena(logs):
    return ofa(logs)


def test_the_oracle_has_the_macs_of_subnets_that_it_never_saw(logs, arena):
    oracle = fit_oracle(logs / "nas" / "dynas_ofa_mbv3_search_logs.csv.gz")
    rng = np.random.default_rng(1)
    vectors = rng.integers(3, size=(20, 45))
    for vector, (top1, macs) in zip(vectors, oracle.predict(vectors), strict=True):
        genes = arena.problem.space.decode(vector).genes
        blocks = [layer for layer in range(20) if f"ks_{layer}" in genes]
        expected = 1000 + sum(block(genes[f"ks_{n}"], genes[f"e_{n}"], n + 1) for n in blocks)
        assert macs == pytest.approx(expected, rel=1e-9)
        assert top1 == pytest.approx(70 + macs / 20000, abs=0.2)


def test_genes_of_blocks_that_do_not_exist_change_nothing(arena):
    space, rng = arena.problem.space, np.random.default_rng(2)
    for _ in range(30):
        vector = rng.integers(space.cardinalities)
        changed = np.where(space.active(vector), vector, rng.integers(space.cardinalities))
        assert space.decode(vector) == space.decode(changed)
        assert space.decode(space.encode(space.decode(vector))) == space.decode(vector)
        assert (
            space.active(vector)[:-5].reshape(5, 4, 2).sum(axis=(1, 2)) == 2 * np.array(DEPTHS)[vector[-5:]]
        ).all()
    assert space.size == (9**2 + 9**3 + 9**4) ** 5 >= 10**8


def test_a_small_space_counts_and_lists_what_it_holds():
    def active(vector):
        return np.array([True, vector[0] == 1])

    space = GeneSpace("small", {"depth": (1, 2), "kernel": (3, 5, 7)}, ("depth", "kernel"), 4, active)
    listed = list(space)
    assert len(listed) == len({a.key for a in listed}) == space.size
    assert all(architecture in space for architecture in listed)
    assert all(space.architecture(architecture.genes) == architecture for architecture in listed)


def test_corruption_hurts_a_tenth_of_all_architectures_and_always_the_same(arena):
    rng = np.random.default_rng(3)
    sampled = [arena.problem.space.sample(rng) for _ in range(2000)]

    def scores(job, metric="top1"):
        return np.array([e.metrics[metric] for e in job.open().score_together(sampled)])

    lost = scores(arena.job) - scores(corrupted(arena, 7).job)
    hurt = lost > 1e-9
    assert hurt.mean() == pytest.approx(0.1, abs=0.02)
    assert lost[~hurt] == pytest.approx(0.0)
    assert (lost[hurt] >= CORRUPTED_POINTS[0]).all()
    assert (lost[hurt] <= CORRUPTED_POINTS[1]).all()
    np.testing.assert_array_equal(scores(corrupted(arena, 7).job), scores(corrupted(arena, 7).job))
    assert (scores(corrupted(arena, 8).job) != scores(corrupted(arena, 7).job)).any()
    np.testing.assert_array_equal(scores(corrupted(arena, 7).job, "macs"), scores(arena.job, "macs"))


class Hills:
    """Answers two sums of genes that pull in opposite directions."""

    threads, device = 1, "cpu"

    def open(self):
        return self

    def in_turns(self, architectures):
        return architectures

    def score_together(self, architectures, split="validation"):
        for architecture in architectures:
            a, b, c = architecture.genes.values()
            yield Evaluation(architecture, {"top1": a * b - c, "macs": a + b + c}, 0.0)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_repeat_from_their_seed_and_may_propose_an_architecture_again(name):
    space = GeneSpace("hills", dict.fromkeys("abc", (1, 2, 3, 4, 5, 6)))
    problem = ArchitectureProblem(space, {"top1": "max", "macs": "min"})
    traces = [run_task(Task(problem, Hills(), name, BASELINES[name], 0, 5, 20, 200)) for _ in range(2)]
    assert traces[0].keys == traces[1].keys
    assert len(traces[0].keys) == 200 > len(set(traces[0].keys)) > 50


@real
def test_the_script_measures_and_merges_what_it_is_asked_for(tmp_path, monkeypatch):
    fixed = ["--data", REAL, "--jobs", "1", "--results", str(tmp_path / "quality")]

    def measure(*options):
        return subprocess.run(
            [sys.executable, "benchmarks/search_quality.py", *fixed, *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    printed = measure("--problems", "spikenas,ofa-corrupted", "--algorithms", "random,nsga2@1", "--seeds", "2",
                      "--evaluations", "160")  # fmt: skip
    assert "| random |" in printed
    script = runpy.run_path(str(ROOT / "benchmarks" / "search_quality.py"))
    more = ["--problems", "spikenas", "--algorithms", "dynas-t", "--seeds", "1", "--evaluations", "60"]
    monkeypatch.setattr(sys, "argv", ["search_quality.py", *fixed, *more])
    script["main"]()
    kept = json.loads((tmp_path / "quality.json").read_text())
    assert kept["problems"].keys() == {"spikenas", "ofa-corrupted"}
    rows = kept["problems"]["spikenas"]["algorithms"]
    assert rows.keys() == {"random", "nsga2@1", "dynas-t"}
    assert 0.8 < rows["random"]["shares"]["150"]["mean"] < 1
    assert kept["machine"]["cores"]
    monkeypatch.setattr(sys, "argv", ["search_quality.py", *fixed, *more, "--seed", "3"])
    script["main"]()
    other = json.loads((tmp_path / "quality.json").read_text())["problems"]["spikenas"]["algorithms"]
    assert other["dynas-t"]["shares"] != rows["dynas-t"]["shares"]
    assert other["random"] == rows["random"]
