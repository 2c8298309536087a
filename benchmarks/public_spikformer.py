"""The public Spikformer architecture in plain torch modules with SpikingJelly neurons: what benchmarks compare with.

Written from the published description: images repeated T times, convolution and linear layers with BatchNorm and
multi-step LIF neurons, everything in torch's default memory layout.
"""

from __future__ import annotations

from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from spaces import Architecture, Layer, Skeleton, hidden_width
from supernet.spikformer import Spikformer


def lif(v_threshold: float, tau: float, kind: str) -> nn.Module:
    """Return SpikingJelly's multi-step LIF as the public model sets it."""
    slope = {"sigmoid": surrogate.Sigmoid, "atan": surrogate.ATan}[kind]()
    return neuron.LIFNode(
        tau=tau, v_threshold=v_threshold, surrogate_function=slope, detach_reset=True, step_mode="m"
    )


class PublicStage(nn.Module):
    """Convolution, BatchNorm, LIF, and a pooling where the stem has one."""

    def __init__(self, narrow: int, wide: int, pool: bool, layer: Layer, kind: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(narrow, wide, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(wide)
        self.neuron = lif(layer.v_threshold, layer.tau, kind)
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(T, B, C, H, W)`` to spikes."""
        T, B = x.shape[:2]
        x = self.bn(self.conv(x.flatten(0, 1)))
        x = self.neuron(x.reshape(T, B, *x.shape[1:]).contiguous()).flatten(0, 1)
        return self.pool(x).unflatten(0, (T, B))


class PublicLinear(nn.Module):
    """Linear layer, BatchNorm1d and LIF on tokens."""

    def __init__(self, n_in: int, n_out: int, layer: Layer, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.bn = nn.BatchNorm1d(n_out)
        self.neuron = lif(layer.v_threshold, layer.tau, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(T, B, N, n_in)`` to spikes."""
        T, B, N, _ = x.shape
        y = self.linear(x.flatten(0, 1))
        y = self.bn(y.transpose(-1, -2)).transpose(-1, -2).reshape(T, B, N, -1).contiguous()
        return self.neuron(y)


class PublicBlock(nn.Module):
    """Spiking self-attention and MLP with plain residual sums."""

    def __init__(self, width: int, layer: Layer, kind: str) -> None:
        super().__init__()
        hidden = hidden_width(width, layer.mlp_ratio)
        self.heads = layer.num_heads
        self.q, self.k, self.v, self.proj = (PublicLinear(width, width, layer, kind) for _ in range(4))
        self.attn = lif(0.5 * layer.v_threshold, layer.tau, kind)
        self.fc1, self.fc2 = PublicLinear(width, hidden, layer, kind), PublicLinear(hidden, width, layer, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(T, B, N, D)`` to the same shape."""
        T, B, N, D = x.shape
        q, k, v = (
            part(x).reshape(T, B, N, self.heads, D // self.heads).permute(0, 1, 3, 2, 4).contiguous()
            for part in (self.q, self.k, self.v)
        )
        mixed = ((q @ k.transpose(-2, -1)) * 0.125) @ v
        mixed = mixed.transpose(2, 3).reshape(T, B, N, D).contiguous()
        x = x + self.proj(self.attn(mixed))
        return x + self.fc2(self.fc1(x))


class PublicSpikformer(nn.Module):
    """The public model with the genes of an architecture, and the weights of one of our networks if given."""

    def __init__(self, skeleton: Skeleton, architecture: Architecture, kind: str = "sigmoid") -> None:
        super().__init__()
        D, first = architecture.embed_dim, architecture.layers[0]
        widths = [skeleton.in_channels, D // 8, D // 4, D // 2, D]
        self.timesteps = architecture.timesteps
        self.stages = nn.ModuleList(
            PublicStage(widths[i], widths[i + 1], i in skeleton.stem_pools, first, kind) for i in range(4)
        )
        self.position = PublicStage(D, D, False, first, kind)
        self.blocks = nn.ModuleList(PublicBlock(D, layer, kind) for layer in architecture.layers)
        self.head = nn.Linear(D, skeleton.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to logits."""
        functional.reset_net(self)
        x = images.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1)
        for stage in self.stages:
            x = stage(x)
        x = x + self.position(x)
        x = x.flatten(-2).transpose(-1, -2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(2).mean(0))

    def take_weights(self, source: Spikformer) -> PublicSpikformer:
        """Load the weights and statistics of one of our networks of the same architecture."""
        names = {"stem.stages.": "stages.", "stem.position.": "position.", ".attention.": "."}
        state = {}
        for own, tensor in source.state_dict().items():
            name = own
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            state[name] = tensor.clone()
        self.load_state_dict(state)
        return self
