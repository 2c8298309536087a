"""A network as an ONNX graph, unrolled over its timesteps.

Layers see all timesteps at once, side by side along the first dimension; neurons take these apart, and repeat their
recorded equations for each. So a neuron of the user's own becomes a graph like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces import Architecture, InputError, Layer
from supernet.layers import EntangledBatchNorm
from supernet.neurons import SpikingNeuron
from supernet.neurons.expressions import Expression, in_order, record, symbol
from supernet.spikformer import ATTENTION_SCALE, ATTENTION_THRESHOLD, LinearNeuron, Spikformer
from supernet.stems import ConvNeuron

OPSET, IR = 18, 9
"""Versions of operators and of the format; onnxruntime 1.16 and later read them."""

INPUT, OUTPUT = "images", "logits"

_LARGEST = 2_000_000_000
"""Bytes of weights that fit the largest file of the format, which has 2 GiB."""

_OPERATORS = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "neg": "Neg"}
_OPERATORS |= {"exp": "Exp", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def check_onnx() -> tuple[Any, Any]:
    """Return the packages onnx and onnxruntime.

    Raises:
        InputError: If one of them is not installed.
    """
    try:
        import onnx  # noqa: PLC0415  # an extra, which may be missing
        import onnxruntime  # noqa: PLC0415  # an extra, which may be missing
    except ImportError as error:
        raise InputError(
            f"the format onnx needs onnx and onnxruntime: {error}; pip install 'spikefront[onnx]' brings both"
        ) from None
    return onnx, onnxruntime


def run_onnx(content: bytes, images: Tensor) -> Tensor:
    """Return the logits ``(B, classes)`` that onnxruntime computes on the CPU from images ``(B, C, H, W)``."""
    _, onnxruntime = check_onnx()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
    return torch.from_numpy(logits)


def onnx_bytes(network: Spikformer, notes: Mapping[str, str]) -> bytes:
    """Return a network as the content of an ONNX file, from ``images`` ``(B, C, H, W)`` to ``logits``.

    Args:
        network: In evaluation mode.
        notes: Metadata of the file.

    Raises:
        InputError: If onnx is not installed, or the file would be larger than the format can be.
    """
    onnx, _ = check_onnx()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > _LARGEST:
        raise InputError(
            f"an ONNX file holds {_LARGEST} bytes of weights at most, but the network has {size}; take spikefront"
        )
    graph = _Graph(onnx)
    _network(graph, network)
    skeleton = network.skeleton
    shape = ["batch", skeleton.in_channels, skeleton.image_size, skeleton.image_size]
    value, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "spikformer",
            [value(INPUT, float32, shape)],
            [value(OUTPUT, float32, ["batch", skeleton.num_classes])],
            graph.constants,
        ),
        producer_name="spikefront",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    onnx.helper.set_model_props(model, dict(notes))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


class _Graph:
    """Nodes and constants, each called when it is added; values are known by their names."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._scalars: dict[float, str] = {}

    def constant(self, array: NDArray[Any]) -> str:
        """Return the name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def scalar(self, value: float) -> str:
        """Return the name of a float32 number, the same for equal ones."""
        if value not in self._scalars:
            self._scalars[value] = self.constant(np.array(value, dtype=np.float32))
        return self._scalars[value]

    def integers(self, *values: int) -> str:
        """Return the name of an int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Return the name of an operator's output."""
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [name], name=f"n{name}", **attributes))
        return name

    def split(self, x: str, parts: int) -> list[str]:
        """Return equal parts along the first dimension."""
        if parts == 1:
            return [x]
        names = [f"v{len(self.nodes)}_{part}" for part in range(parts)]
        self.nodes.append(
            self._onnx.helper.make_node("Split", [x], names, name=f"n{names[0]}", axis=0, num_outputs=parts)
        )
        return names


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)


def _network(graph: _Graph, network: Spikformer) -> None:
    architecture = network.architecture
    x = _stem(graph, network, architecture)
    for block, layer in zip(network.blocks, architecture.layers, strict=True):
        x = _block(graph, block, x, network.skeleton.grid_size**2, layer, architecture.timesteps)
    tokens = graph.add("ReduceMean", x, graph.integers(1), keepdims=0)
    steps = graph.add("Reshape", tokens, graph.integers(architecture.timesteps, -1, architecture.embed_dim))
    mean = graph.add("ReduceMean", steps, graph.integers(0), keepdims=0)
    weight, bias = (graph.constant(_array(tensor)) for tensor in (network.head.weight, network.head.bias))
    graph.add("Gemm", mean, weight, bias, output=OUTPUT, transB=1)


def _stem(graph: _Graph, network: Spikformer, architecture: Architecture) -> str:
    """Return tokens ``(T * B, N, D)``."""
    stem, layer, T = network.stem, architecture.layers[0], architecture.timesteps

    def convolve(part: Any, x: str) -> str:
        current = graph.add("Conv", x, graph.constant(_array(part.conv.weight)), pads=[1, 1, 1, 1])
        return _normalise(graph, part.bn, None, current, (-1, 1, 1))

    x = INPUT
    for index, stage in enumerate(stem.stages):
        current = convolve(stage, x)  # an image drives every timestep alike
        steps = [current] * T if index == 0 else graph.split(current, T)
        x = _fire(graph, cast(ConvNeuron, stage).neuron, steps, layer.v_threshold, layer.tau)
        if index in stem.pools:
            x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    position = graph.split(convolve(stem.position, x), T)
    x = graph.add("Add", x, _fire(graph, stem.position.neuron, position, layer.v_threshold, layer.tau))
    flat = graph.add("Reshape", x, graph.integers(0, architecture.embed_dim, -1))
    return graph.add("Transpose", flat, perm=[0, 2, 1])


def _normalise(graph: _Graph, norm: EntangledBatchNorm, bias: Tensor | None, x: str, shape: tuple[int, ...]) -> str:
    """Return ``x`` plus a bias, normalised by running statistics, as one gain and one shift per channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    offset = -norm.running_mean.double() if bias is None else bias.detach().double() - norm.running_mean.double()
    shift = norm.bias.detach().double() + gain * offset
    scaled = graph.add("Mul", x, graph.constant(_array(gain.view(shape))))
    return graph.add("Add", scaled, graph.constant(_array(shift.view(shape))))


def _block(graph: _Graph, block: Any, x: str, tokens: int, layer: Layer, T: int) -> str:
    def project(part: LinearNeuron, x: str) -> str:
        current = graph.add("MatMul", x, graph.constant(_array(part.linear.weight).T))
        steps = graph.split(_normalise(graph, part.bn, part.linear.bias, current, (-1,)), T)
        return _fire(graph, part.neuron, steps, layer.v_threshold, layer.tau)

    def heads(part: LinearNeuron, perm: Sequence[int]) -> str:
        """Return ``(T * B, heads, N, D / heads)``, its dimensions permuted."""
        split = graph.add("Reshape", project(part, x), graph.integers(0, tokens, layer.num_heads, -1))
        return graph.add("Transpose", split, perm=perm)

    attention = block.attention
    q, k, v = (
        heads(part, perm)
        for part, perm in (
            (attention.q, (0, 2, 1, 3)),
            (attention.k, (0, 2, 3, 1)),
            (attention.v, (0, 2, 1, 3)),
        )
    )
    mixed = graph.add("MatMul", graph.add("MatMul", q, k), v)
    scaled = graph.add("Mul", mixed, graph.scalar(ATTENTION_SCALE))
    current = graph.add("Reshape", graph.add("Transpose", scaled, perm=[0, 2, 1, 3]), graph.integers(0, tokens, -1))
    spikes = _fire(
        graph, attention.neuron, graph.split(current, T), layer.v_threshold * ATTENTION_THRESHOLD, layer.tau
    )
    x = graph.add("Add", x, project(attention.proj, spikes))
    return graph.add("Add", x, project(block.fc2, project(block.fc1, x)))


def _fire(graph: _Graph, neuron: SpikingNeuron, currents: Sequence[str], v_threshold: float, tau: float) -> str:
    """Return the spikes ``(T * B, ...)`` of a neuron for the currents ``(B, ...)`` of each timestep."""
    equations = neuron.equations
    constants = neuron.constants(v_threshold, tau)
    values = {name: graph.scalar(float(torch.as_tensor(constants[name]).detach())) for name in equations.constants}
    zero, spikes = graph.scalar(0.0), []
    states = dict.fromkeys(equations.states, zero)
    const = SimpleNamespace(**{name: symbol(name) for name in values})
    before = SimpleNamespace(**{name: symbol(name) for name in states})
    x, fired = symbol("x"), symbol("s")
    u: Expression = record(equations.charge, x, before, const)
    excess = u - record(equations.threshold, before, const)
    after: tuple[Expression, ...] = record(equations.reset, u, fired, x, before, const)
    for current in currents:
        known = {id(x): current}
        known |= {id(getattr(const, name)): value for name, value in values.items()}
        known |= {id(getattr(before, name)): value for name, value in states.items()}
        write = _writer(graph, known)
        above = graph.add("GreaterOrEqual", write(excess), zero)
        spikes.append(graph.add("Cast", above, to=1))  # float32
        known[id(fired)] = spikes[-1]
        states = dict(zip(states, map(write, after), strict=True))
    return graph.add("Concat", *spikes, axis=0) if len(spikes) > 1 else spikes[0]


def _writer(graph: _Graph, known: dict[int, str]) -> Callable[[Expression], str]:
    """Return what adds an expression to a graph, and each of its nodes once."""

    def write(expression: Expression) -> str:
        for node in in_order([expression]):
            if id(node) in known:
                continue
            if node.operation == "constant":
                known[id(node)] = graph.scalar(node.number)
            else:
                operands = [known[id(operand)] for operand in node.operands]
                known[id(node)] = graph.add(_OPERATORS[node.operation], *operands)
        return known[id(expression)]

    return write
