"""Stand-ins for the expensive parts of a run, through their protocols, and the tiny recipe of all tests here."""

from collections import Counter
from importlib.util import find_spec

import numpy as np

from nas.algorithms import ALGORITHMS, build_algorithm
from nas.evaluation import Evaluation
from nas.problem import ArchitectureProblem
from nas.workers import NothingToComeError
from spaces import SearchSpace

OBJECTIVES = {"accuracy": "max", "energy_mj": "min"}

SPACE = """
name = "tiny"

[skeleton]
image_size = 8
in_channels = 1
num_classes = 10
stem_pools = [1, 3]

[genes]
embed_dim = [8, 16]
timesteps = [1, 2]
depth = [1, 2]
mlp_ratio = [1.0]
num_heads = [1, 2]
v_threshold = [0.8, 1.0]
tau = [1.5, 2.0]
"""
"""4 · (8 + 64) = 288 architectures."""

RECIPE = """
name = "tiny"
seed = 9
space = "space.toml"
metrics = ["accuracy", "energy_mj", "parameters", "spikes"]

[data]
name = "digits"
train_images = 1000

[training]
epochs = 2
batch_size = 16
learning_rate = 1e-2
warmup_epochs = 0.2
mixup = 0.0

[scoring]
calibration_images = 32
validation_images = 60
batch_size = 64

[search]
population = 6
evaluations = 16

[workers]
pool = "local"
"""


METRICS = 'metrics = ["accuracy", "energy_mj", "parameters", "spikes"]'
"""Line of the recipe; counting dense operations would take half of the time of each evaluation."""


LITTLE = ("train_images = 1000", "train_images = 200")
"""Change of the recipe for runs in which it does not matter what a network has learnt."""


def write_recipe(folder, *changes, space=SPACE, name="tiny.toml"):
    """Write the tiny recipe with some texts replaced, and its space, into a folder; return the recipe's path."""
    text = RECIPE
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} must stand once in the recipe"
        text = text.replace(old, new)
    (folder / "space.toml").write_text(space)
    (folder / name).write_text(text)
    return folder / name


def narrowed(space, **genes):
    """Return a space with other choices for some genes."""
    values = space.to_dict()
    return SearchSpace.from_dict({**values, "genes": values["genes"] | genes})


def toy_metrics(architecture):
    """Return a trade-off between accuracy and energy that thresholds and time constants only spoil or not."""
    layers = architecture.layers
    spoilt = sum(abs(layer.v_threshold - 1.2) + abs(layer.tau - 2.0) / 2 for layer in layers) / len(layers)
    size = architecture.embed_dim * architecture.timesteps * sum(1 + layer.mlp_ratio for layer in layers)
    return {"accuracy": size / (size + 2000) * float(np.exp(-spoilt)), "energy_mj": size * 1e-5}


def fails(architecture):
    """Say of about half of all architectures that they fail, without regard to their metrics."""
    return int(architecture.key, 16) % 2 == 0


def evaluation(architecture):
    return Evaluation(architecture, toy_metrics(architecture), 0.5)


def half_failing(architecture):
    if fails(architecture):
        return Evaluation(architecture, {}, 0.25, "RuntimeError: even key")
    return evaluation(architecture)


class FakePool:
    """A pool that answers from a function and remembers what it was asked.

    Args:
        answer: Maps an architecture to its evaluation.
        shuffle: Generator that results come out of order by; in order without one.
        dies_after: Results after which the driver is killed.
    """

    def __init__(self, answer=evaluation, shuffle=None, dies_after=None):
        self.answer, self.shuffle, self.dies_after = answer, shuffle, dies_after
        self.submitted, self.waiting, self.collected = [], [], 0

    def submit(self, architecture, split="validation"):
        self.submitted.append((architecture, split))
        self.waiting.append(architecture)

    def collect(self):
        if self.collected == self.dies_after:
            raise KeyboardInterrupt
        self.collected += 1
        index = 0 if self.shuffle is None else int(self.shuffle.integers(len(self.waiting)))
        return self.answer(self.waiting.pop(index))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.waiting.clear()

    @property
    def counts(self):
        return Counter(architecture for architecture, _ in self.submitted)


class OnePerson:
    """A pool with one worker that scores when it is asked for a result, or never."""

    def __init__(self):
        self.waiting, self.withdrawn, self.idle_share = [], False, 0.25

    def submit(self, architecture, split="validation"):
        self.waiting.append(architecture)

    def collect(self):
        if self.withdrawn:
            raise NothingToComeError
        assert self.waiting, "nothing is to come"
        return half_failing(self.waiting.pop(0))

    @property
    def hungry(self):
        return not self.waiting

    def withdraw(self):
        self.waiting.clear()
        self.withdrawn = True
        return 0


def some(space, count):
    """Return the first architectures of a space."""
    return [architecture for architecture, _ in zip(space, range(count), strict=False)]


def drawn(space, count, seed=0):
    """Return distinct architectures, drawn by chance."""
    rng = np.random.default_rng(seed)
    return list({space.sample(rng): None for _ in range(3 * count)})[:count]


def problem_of(space, **options):
    """Return the search for the best toy metrics."""
    return ArchitectureProblem(space, OBJECTIVES, **options)


def installed():
    """Return the names of the algorithms that need nothing that is missing here."""
    return [name for name in ALGORITHMS if name != "age-moea2" or find_spec("numba")]


def some_objectives(count=2):
    """Return the first objectives of the toy metrics."""
    return dict(list((OBJECTIVES | {"width": "min"}).items())[:count])


def three_metrics(architecture):
    """Return the toy metrics and a third one."""
    return toy_metrics(architecture) | {"width": float(architecture.embed_dim * architecture.layers[0].mlp_ratio)}


def proposals(
    name, space, budget, population=10, seed=0, answer=evaluation, objectives=None, constraints=(), expand=1
):
    """Return the generations that an algorithm proposes, as architectures, and the algorithm; without a reranker."""
    problem = ArchitectureProblem(space, objectives or OBJECTIVES, constraints)
    algorithm = build_algorithm(name, problem, population, seed, budget, expand=expand)
    generations = []
    while sum(map(len, generations)) < budget:
        asked = algorithm.ask()
        if asked is None or len(asked) == 0:
            break
        generations.append([space.decode(x) for x in asked.get("X")])
        results = [answer(architecture) for architecture in generations[-1]]
        algorithm.tell(infills=algorithm.problem.fill(asked, [None if r.failure else r.metrics for r in results]))
    return generations, algorithm


def lasting(frame):
    """Return results without what may differ between two runs of one recipe: how long it took, and who did it."""
    return frame.drop(columns=["duration", "worker"])


class Listener:
    """A reporter that remembers titles and results."""

    def __init__(self):
        self.heard, self.steps = {}, []

    def say(self, line):
        self.steps.append(line)

    def train(self, progress):
        self.steps.append("training")

    def start(self, title, total, objectives, volume=None):
        self.results = self.heard.setdefault(title, [])

    def evaluated(self, evaluation):
        self.results.append(evaluation)
