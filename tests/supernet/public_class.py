"""The tensors that the authors' public CIFAR class of Spikformer has, and a plain network that has them too.

Names, shapes and equations are those of github.com/ZK-Zhou/spikformer, cifar10/model.py, written anew.
"""

import torch
import torch.nn.functional as F
from torch import nn

NORM = {"weight": True, "bias": True, "running_mean": True, "running_var": True, "num_batches_tracked": False}


def shape_table(width, depth, hidden, channels, classes):
    """Return the shape of every tensor by its public name."""
    table = {}

    def norm(name, size):
        table.update({f"{name}.{part}": (size,) if sized else () for part, sized in NORM.items()})

    stem = [channels, width // 8, width // 4, width // 2, width]
    for index, suffix in enumerate(["", "1", "2", "3"]):
        table[f"patch_embed.proj_conv{suffix}.weight"] = (stem[index + 1], stem[index], 3, 3)
        norm(f"patch_embed.proj_bn{suffix}", stem[index + 1])
    table["patch_embed.rpe_conv.weight"] = (width, width, 3, 3)
    norm("patch_embed.rpe_bn", width)
    for index in range(depth):
        block = f"block.{index}"
        for name in ("norm1", "norm2"):
            table[f"{block}.{name}.weight"] = table[f"{block}.{name}.bias"] = (width,)
        parts = {f"attn.{part}": (width, width) for part in ("q", "k", "v", "proj")}
        for part, (rows, columns) in {**parts, "mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}.items():
            table[f"{block}.{part}_linear.weight"] = (rows, columns)
            table[f"{block}.{part}_linear.bias"] = (rows,)
            norm(f"{block}.{part}_bn", rows)
    table["head.weight"], table["head.bias"] = (classes, width), (classes,)
    return table


class LIFNode(nn.Module):
    def __init__(self, v_threshold=1.0):
        super().__init__()
        self.tau, self.v_threshold = 2.0, v_threshold

    def forward(self, x):
        v, spikes = torch.zeros_like(x[0]), []
        for step in x:
            u = v + (step - v) / self.tau
            spikes.append((u >= self.v_threshold).to(x))
            v = torch.where(u >= self.v_threshold, torch.zeros_like(u), u)
        return torch.stack(spikes)


class Stem(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        sizes = [channels, width // 8, width // 4, width // 2, width]
        for index, suffix in enumerate(["", "1", "2", "3"]):
            setattr(self, f"proj_conv{suffix}", nn.Conv2d(sizes[index], sizes[index + 1], 3, 1, 1, bias=False))
            setattr(self, f"proj_bn{suffix}", nn.BatchNorm2d(sizes[index + 1]))
            setattr(self, f"proj_lif{suffix}", LIFNode())
        self.rpe_conv, self.rpe_bn, self.rpe_lif = (
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            LIFNode(),
        )

    def forward(self, x):  # (T, B, C, H, W)
        steps, count = x.shape[:2]
        for suffix in ("", "1", "2", "3"):
            conv, bn, lif = (getattr(self, f"proj_{kind}{suffix}") for kind in ("conv", "bn", "lif"))
            x = lif(bn(conv(x.flatten(0, 1))).unflatten(0, (steps, count)))
            if suffix in ("2", "3"):
                x = F.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, (steps, count))
        x = x + self.rpe_lif(self.rpe_bn(self.rpe_conv(x.flatten(0, 1))).unflatten(0, (steps, count)))
        return x.flatten(3).transpose(2, 3)


class Projecting(nn.Module):
    def add(self, name, inputs, outputs):
        setattr(self, f"{name}_linear", nn.Linear(inputs, outputs))
        setattr(self, f"{name}_bn", nn.BatchNorm1d(outputs))
        setattr(self, f"{name}_lif", LIFNode())

    def project(self, name, x):
        linear, bn, lif = (getattr(self, f"{name}_{kind}") for kind in ("linear", "bn", "lif"))
        y = linear(x)
        return lif(bn(y.flatten(0, 2)).view_as(y))


class Attention(Projecting):
    def __init__(self, width, heads):
        super().__init__()
        self.num_heads = heads
        for name in ("q", "k", "v", "proj"):
            self.add(name, width, width)
        self.attn_lif = LIFNode(0.5)

    def forward(self, x):
        q, k, v = (
            self.project(name, x).unflatten(-1, (self.num_heads, -1)).movedim(3, 2) for name in ("q", "k", "v")
        )
        mixed = torch.einsum("tbhnd,tbhmd,tbhme->tbhne", q, k, v) * 0.125
        return self.project("proj", self.attn_lif(mixed.movedim(2, 3).flatten(3)))


class MLP(Projecting):
    def __init__(self, width, hidden):
        super().__init__()
        self.add("fc1", width, hidden)
        self.add("fc2", hidden, width)

    def forward(self, x):
        return self.project("fc2", self.project("fc1", x))


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), MLP(width, hidden)

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(x)


class PublicSpikformer(nn.Module):
    """Takes the keywords that the public class takes, of square images."""

    def __init__(
        self, img_size_h, img_size_w, patch_size, in_channels, num_classes, embed_dims, num_heads, mlp_ratios, depths
    ):
        super().__init__()
        assert (patch_size, img_size_h) == (4, img_size_w)
        assert embed_dims % num_heads == 0
        self.T = 4
        self.patch_embed = Stem(in_channels, embed_dims)
        self.block = nn.ModuleList(Block(embed_dims, num_heads, int(embed_dims * mlp_ratios)) for _ in range(depths))
        self.head = nn.Linear(embed_dims, num_classes)

    def forward(self, images):
        x = self.patch_embed(images.expand(self.T, *images.shape))
        for block in self.block:
            x = block(x)
        return self.head(x.mean(2).mean(0))


def load_public(constructor, tensors, attributes):
    """Return the network of an export, loaded as its model card says."""
    network = PublicSpikformer(**constructor)
    network.load_state_dict(tensors, strict=True)
    for path, value in attributes.items():
        owner, _, name = path.rpartition(".")
        part = network.get_submodule(owner)
        assert hasattr(part, name), path
        setattr(part, name, value)
    return network.eval()
