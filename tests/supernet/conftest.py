"""Tiny spaces, networks that really spike, and a learnable image set."""

import gzip
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_files import MNIST, cifar_records, idx, unique_noise
from kernel_contract import AVAILABLE, Executor
from PIL import Image

from spaces import InputError, SearchSpace
from supernet import ranks as ranks_module
from supernet.data import ImageData, Split, load_data
from supernet.layers import EntangledBatchNorm, EntangledConv2d, EntangledLinear
from supernet.neurons import cuda
from supernet.ranks import Ranks
from supernet.spikformer import build_supernet

torch.set_num_threads(1)

SKELETON = {"image_size": 8, "in_channels": 1, "num_classes": 3, "stem_pools": [3]}
GENES = {
    "embed_dim": [16, 32],
    "timesteps": [1, 2, 3],
    "depth": [1, 2, 3],
    "mlp_ratio": [0.5, 1.0, 2.0],
    "num_heads": [1, 2, 4],
    "v_threshold": [0.5, 0.75],
    "tau": [1.5, 2.0, 3.0],
}


@pytest.fixture(autouse=True)
def same_start(monkeypatch):
    """Networks built without a seed are the same in every run, and tests see no data but their own.

    Tests on real files read ``SPIKEFRONT_DATA`` when they are collected.
    """
    torch.manual_seed(0)
    monkeypatch.delenv("SPIKEFRONT_DATA", raising=False)


@pytest.fixture
def make_space():
    def make_space(genes=None, **skeleton):
        genes = GENES | (genes or {})
        if skeleton.get("neuron") == "if":
            genes |= {"tau": [2.0]}
        return SearchSpace.from_dict({"name": "toy", "skeleton": SKELETON | skeleton, "genes": genes})

    return make_space


@pytest.fixture
def enliven():
    def enliven(model, seed=0):
        """Give a network weights and BatchNorm statistics under which every neuron spikes at some rate."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, EntangledBatchNorm):
                    module.weight.uniform_(2.0, 4.0, generator=generator)
                    module.bias.uniform_(-1.0, 2.0, generator=generator)
                    module.running_mean.normal_(0.0, 0.2, generator=generator)
                    module.running_var.uniform_(0.1, 0.4, generator=generator)
                elif isinstance(module, EntangledConv2d | EntangledLinear):
                    module.weight.normal_(0.0, module.weight[0].numel() ** -0.5, generator=generator)
                    if module.bias is not None:
                        module.bias.normal_(0.0, 0.2, generator=generator)
                elif hasattr(module, "w"):
                    module.w.normal_(0.0, 0.5, generator=generator)
        return model

    return enliven


@pytest.fixture
def lively_supernet(enliven):
    def lively_supernet(space, seed=0):
        return enliven(build_supernet(space, seed), seed)

    return lively_supernet


@pytest.fixture
def make_images():
    def make_images(count=3, channels=1, size=8, seed=0):
        return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))

    return make_images


@pytest.fixture
def make_data():
    def make_data(count=48, channels=1, size=8, num_classes=3, seed=0):
        """Noisy pictures of one bright stripe per class; reading validation or test as images fails."""
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % num_classes
        pictures = rng.integers(0, 120, (count, channels, size, size))
        for picture, label in zip(pictures, labels, strict=True):
            picture[:, 2 * label : 2 * label + 2] += 130
        poison = Split(np.empty((0,), dtype=np.uint8), np.empty((0,), dtype=np.int64))
        train = Split(pictures.astype(np.uint8), labels.astype(np.int64))
        return ImageData("stripes", train, poison, poison, tuple("abcdefgh"[:num_classes]))

    return make_data


@pytest.fixture
def global_states():
    def global_states():
        """Return the state of every global random generator, as comparable values."""
        return (
            torch.get_rng_state().numpy().tobytes(),
            repr(np.random.get_state()),  # noqa: NPY002  # the global generator is what is watched
            random.getstate(),
        )

    return global_states


@pytest.fixture(params=AVAILABLE)
def executor(request):
    module, device = AVAILABLE[request.param]
    if module.problem() is not None:
        pytest.skip(f"{request.param}: {module.problem()}")
    return Executor(request.param, device, module.kernels)


@pytest.fixture
def gpu():
    if cuda.problem() is not None:
        pytest.skip(f"cupy: {cuda.problem()}")
    return Executor("cupy", "cuda", cuda.kernels)


@pytest.fixture
def mnist(tmp_path):
    """Write an MNIST-like set of 200 training and 30 test pictures; return its folder."""

    def mnist(folder="", packed=True, **change):
        content = {
            "train_images": unique_noise(200, 6, 6),
            "train_labels": np.arange(200, dtype=np.uint8) % 10,
            "test_images": unique_noise(30, 6, 6, seed=1),
            "test_labels": np.arange(30, dtype=np.uint8) % 10,
        } | change
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, array in zip(MNIST, content.values(), strict=True):
            path = tmp_path / folder / name
            if packed:
                path.with_name(name + ".gz").write_bytes(gzip.compress(idx(array), 1))
            else:
                path.write_bytes(idx(array))
        return tmp_path

    return mnist


@pytest.fixture
def cifar10(tmp_path):
    def cifar10(folder="", batches=(1, 2, 3, 4, 5), size=30):
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        for index in batches:
            (root / f"data_batch_{index}.bin").write_bytes(cifar_records(size, 10, 1, index).tobytes())
        (root / "test_batch.bin").write_bytes(cifar_records(20, 10, 1, 9).tobytes())
        (root / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)) + "\n\n")
        return tmp_path

    return cifar10


@pytest.fixture
def cifar100(tmp_path):
    def cifar100(folder=""):
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        (root / "train.bin").write_bytes(cifar_records(1000, 100, 2, 0).tobytes())
        (root / "test.bin").write_bytes(cifar_records(100, 100, 2, 9).tobytes())
        (root / "fine_label_names.txt").write_text("\n".join(f"class{i}" for i in range(100)))
        return tmp_path

    return cifar100


@pytest.fixture
def pictures(tmp_path):
    def pictures(folder, counts, shape=(4, 4, 3), seed=0):
        """Write ``counts`` pictures by class name; return the data folder."""
        for number, (name, count) in enumerate(counts.items()):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(unique_noise(count, *shape, seed=100 * seed + number)):
                Image.fromarray(picture).save(tmp_path / folder / name / f"{index:03}.png")
        return tmp_path

    return pictures


@pytest.fixture
def any_set(mnist, cifar10, cifar100, pictures):
    """Return the small version of a set by name."""

    def any_set(name):
        if name == "digits":
            return load_data(name)
        if name == "folder":
            return load_data(name, pictures("own", {"a": 20, "b": 25, "c": 15}) / "own")
        root = {"mnist": mnist, "fashion-mnist": mnist, "cifar10": cifar10, "cifar100": cifar100}[name]()
        return load_data(name, root)

    return any_set


@pytest.fixture
def together(monkeypatch):
    """Run a function in one thread per rank, with a sum over threads, and return what each returned."""

    def together(count, function):
        place, met, messages, returned = threading.local(), threading.Barrier(count, timeout=60), {}, {}

        class Threaded(Ranks):
            """A process whose parts have threads of their own, any of which may add up."""

            def add(self, tensor):
                place.rank = self.rank
                super().add(tensor)

        def all_reduce(tensor, op="sum"):
            messages[place.rank] = tensor.clone()
            met.wait()
            every = torch.stack([messages[rank] for rank in range(count)])
            tensor.copy_(every.sum(dim=0) if op == "sum" else every.amax(dim=0))
            met.wait()

        def run(rank):
            place.rank = rank
            try:
                returned[rank] = function(Threaded(rank, count))
            except InputError as error:
                returned[rank] = error
            finally:
                if rank not in returned:
                    met.abort()

        fake = SimpleNamespace(all_reduce=all_reduce, ReduceOp=SimpleNamespace(MAX="max"))
        monkeypatch.setattr(ranks_module, "distributed", fake)
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [returned[rank] for rank in range(count)]

    return together
