"""Nets of whole numbers made up at random, as `quantise` would leave them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqbag.classifier import Classifier
from seqbag.config import TrainConfig
from seqbag.layer import Layer, channels_read, layer_of_readout
from seqbag.network import Network
from seqbag.patches import Patcher
from seqbag.regions import Regions


def ternary_filters(rng, inputs, filters, zeros=0.3, signs=1):
    """Weights (inputs, filters) of -1, 0, +1; a bias (filters,), or (signs, filters), of whole numbers and a half."""
    weights = rng.choice([-1, 0, 1], (inputs, filters), p=[(1 - zeros) / 2, zeros, (1 - zeros) / 2]).astype(np.float32)
    spread = max(1, int(np.sqrt(inputs)))
    return weights, (rng.integers(-spread, spread + 1, (signs, filters)[signs == 1 :]) + 0.5).astype(np.float32)


def classifier_of(rng, features, hidden, classes):
    """A classifier with statistics of plausible size."""
    classifier = Classifier(features, hidden, classes, rng)
    classifier.standardise(rng.uniform(0, 2, features), rng.uniform(0.2, 2, features))
    return classifier


def vote_of(rng, half):
    """Two voters on a half of the features each, one of them beside another, and one on all."""
    voters = [(Classifier(size, hidden, 2, rng), first, 1) for size, hidden, first in (
        (half, 4, 0), (half, 4, half), (half, 3, half), (2 * half, 2, 0)
    )]  # fmt: skip
    made = Classifier.voting(2 * half, voters)
    made.standardise(rng.uniform(0, 2, 2 * half), rng.uniform(0.2, 2, 2 * half))
    return made


def layer_of(
    rng, windows, filters, regions, channels, padding="same", stride=1, embedding=None, zeros=0.3, groups=1, signs=1
):
    """A layer of sign activations. windows: shapes, one for each `groups` groups; channels: of its input."""
    patchers = tuple(Patcher(window, (stride,) * len(window), padding) for window in windows for _ in range(groups))
    read = [len(range(channels)[channels_read(group, groups)]) for group in range(len(patchers))]
    inputs = [int(np.prod(patcher.window)) * own for patcher, own in zip(patchers, read, strict=True)]
    parts = [ternary_filters(rng, own, filters, zeros, signs) for own in inputs]
    weights, biases = tuple(w for w, _ in parts), tuple(b for _, b in parts)
    return Layer(patchers, weights, biases, "sign", Regions.parse(regions), embedding, channel_groups=groups)


def with_activation(layer, activation):
    """The layer and its readout with another activation."""
    readout = layer.readout and replace(layer.readout, activation=activation)
    return replace(layer, activation=activation, readout=readout)


def unsplit(layer, channels):
    """The same layer, its groups reading all channels, with weights of nought for those that they did not."""
    wide = []
    for group, (patcher, weights) in enumerate(zip(layer.patchers, layer.weights, strict=True)):
        sites = int(np.prod(patcher.window))
        whole = np.zeros((sites, channels, weights.shape[1]), np.float32)
        whole[:, group % layer.channel_groups :: layer.channel_groups] = weights.reshape(sites, -1, weights.shape[1])
        wide.append(whole.reshape(sites * channels, -1))
    return replace(layer, weights=tuple(wide), channel_groups=1)


def token_network(seed=0, dims=10, filters=7, widths=(1, 3), regions="tail:3,1", layers=2, tokens=12, **kind):
    """A net over the characters `a`, `b`, ... of tokens - 2 kinds and any others."""
    rng = np.random.default_rng(seed)
    config = TrainConfig(
        tokenizer="chars", dims=dims, filters=(filters,), windows=widths, layers=layers, activation="sign"
    )
    embedding = rng.choice([-1, 1], (tokens, dims)).astype(np.float32)
    embedding[:2] = 0  # padding and unknown tokens
    stack = [layer_of(rng, [(w,) for w in widths], filters, regions, dims, embedding=embedding, **kind)]
    for _ in range(layers - 1):
        stack.append(layer_of(rng, [(w,) for w in widths], filters, regions, filters * len(widths), **kind))
    lookup = np.ones(config.vocabulary, np.int32)
    lookup[0] = 0
    lookup[np.sort(rng.choice(np.arange(1, config.vocabulary), tokens - 2, replace=False))] = np.arange(2, tokens)
    features = sum(layer.features() for layer in stack)
    return Network(config, ("no", "yes", "zebra"), lookup, stack, classifier_of(rng, features, 5, 3))


def image_network(
    seed=0,
    filters=5,
    regions="grid:2",
    channels=3,
    window=(3, 3),
    padding="same",
    hidden=0,
    pooling=(),
    first="none",
    project=0,
    groups=1,
    readout=0,
    signs=1,
):
    """A net over pixels: a float layer, whose maps are pooled, then two of bits, in `groups` groups of filters.

    readout: filters of the readout of each of these, 0 for none; signs: of each filter and each readout's.

    project: channels that the maps of all layers but the last are projected to, which bits are not.
    """
    rng = np.random.default_rng(seed)
    config = TrainConfig(filters=(filters,), layers=3, activation="sign", hidden=hidden)
    weights = rng.standard_normal((int(np.prod(window)) * channels, filters)).astype(np.float32)
    bias = rng.standard_normal((signs, filters)[signs == 1 :]).astype(np.float32)
    patcher = Patcher(window, (1,) * len(window), padding)
    pixels = Layer((patcher,), (weights,), (bias,), "sign", Regions.parse(first), pooling=pooling)
    inputs = [project or filters, project or filters * groups]
    stack = [pixels] + [
        layer_of(rng, [window], filters, regions, size, padding, groups=groups, signs=signs) for size in inputs
    ]
    if project:
        matrices = rng.standard_normal((2, filters, project)).astype(np.float32) / np.float32(50)
        stack[:2] = [replace(layer, projection=matrix) for layer, matrix in zip(stack, matrices, strict=False)]
    if readout:
        behind = [ternary_filters(rng, layer.channels, readout, signs=signs) for layer in stack[1:]]
        stack[1:] = [
            replace(layer, readout=layer_of_readout(*own, "sign", layer.regions, len(window)))
            for layer, own in zip(stack[1:], behind, strict=True)
        ]
    features = sum(layer.features(len(window)) for layer in stack)
    return Network(config, ("cat", "dog"), None, stack, classifier_of(rng, features, hidden, 2))
