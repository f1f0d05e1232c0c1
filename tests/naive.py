"""Slow, obvious oracles that the kernels are tested against."""

import itertools

import numpy as np


def _axis_windows(size: int, window: int, stride: int, padding: str) -> list[list[int]]:
    """The sites of every window along one axis; those outside the axis are padding."""
    if padding == "valid":
        return [list(range(o, o + window)) for o in range(0, size - window + 1, stride)]
    before = (window - 1) // 2 if padding == "same" else window - 1
    return [list(range(o - before, o - before + window)) for o in range(0, size, stride)]


def grid_index(
    shape: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], padding: str
) -> list[list[int]]:
    """For each window of a grid, the row-major number of each site in it, -1 where it is padded."""
    axes = [_axis_windows(*axis, padding) for axis in zip(shape, window, stride, strict=True)]
    numbers = {site: number for number, site in enumerate(itertools.product(*map(range, shape)))}
    return [[numbers.get(site, -1) for site in itertools.product(*window)] for window in itertools.product(*axes)]


def ragged_index(offsets: list[int], window: int, stride: int, padding: str) -> tuple[list[list[int]], list[int]]:
    """The windows of each sequence in turn as sites of the flat batch, and where each sequence's windows start."""
    index: list[list[int]] = []
    out_offsets = [0]
    for first, last in itertools.pairwise(offsets):
        for sites in _axis_windows(last - first, window, stride, padding):
            index.append([first + site if 0 <= site < last - first else -1 for site in sites])
        out_offsets.append(len(index))
    return index, out_offsets


def gather(values: list[list[float]], index: list[list[int]]) -> list[list[float]]:
    """Each window's channels, site after site; zeros for padding. values: (sites, channels)."""
    padding = [0] * len(values[0])
    return [[value for site in window for value in (values[site] if site >= 0 else padding)] for window in index]


def nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The centroid at the least squared distance from each row, in float64; ties to the lowest."""
    return np.array([((row - centroids) ** 2).sum(axis=1).argmin() for row in x.astype(np.float64)], dtype=np.int64)


def exact_codes(windows: list[tuple[int, ...]], capacity: int) -> tuple[list[int], dict[tuple[int, ...], int], int]:
    """The code of each window in turn, the times each kept window was taken (kept in the order met), and overflows."""
    counts: dict[tuple[int, ...], int] = {}
    codes, overflowed = [], 0
    for window in windows:
        if window not in counts and len(counts) < capacity:
            counts[window] = 0
        kept = list(counts)
        overflowed += window not in counts
        codes.append(kept.index(window) if window in counts else near_window(window, kept))
        counts[kept[codes[-1]]] += 1
    return codes, counts, overflowed


def near_window(window: tuple[int, ...], kept: list[tuple[int, ...]]) -> int:
    """The oldest kept window that differs at one place, outermost places first; or agrees at one; or the oldest."""
    width = len(window)
    outermost = sorted(range(width), key=lambda p: (min(p, width - 1 - p), p))
    agreeing = [[p for p in range(width) if p != masked] for masked in outermost]
    agreeing += [[width - 1 - p] for p in outermost]
    for places in agreeing:
        for code, candidate in enumerate(kept):
            if all(window[p] == candidate[p] for p in places):
                return code
    return 0


def bag_of(codes: list[list[int]], segments: list[int], first: int, last: int) -> frozenset:
    """What an example is: how often each (group, segment, code) occurs in its sites first .. last."""
    found: dict[tuple[int, int, int], int] = {}
    for group, row in enumerate(codes):
        for site in range(first, last):
            key = group, segments[site], row[site]
            found[key] = found.get(key, 0) + 1
    return frozenset(found.items())


def tail_segment(length: int, site: int, sizes: tuple[int, ...]) -> int:
    """How many of the spans that end with a sequence hold a site."""
    return sum(site >= length - size for size in sizes)


def grid_segment(shape: tuple[int, ...], site: tuple[int, ...], cells: int) -> int:
    """The cell of a site, in row-major order of cells."""
    number = 0
    for size, at in zip(shape, site, strict=True):
        number = number * cells + at * cells // size
    return number


def standardised(features: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Columns less their mean, over their standard deviation, as the classifier does it, in float64."""
    mean = np.average(features, 0, weights)
    variance = np.average((features - mean) ** 2, 0, weights)
    return (features - mean) / np.sqrt(variance + 1e-6 + 1e-4 * variance.mean())


def head_logits(parameters: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """One hidden layer, or none, on standardised features."""
    if "hidden" in parameters:
        features = np.maximum(features @ parameters["hidden"] + parameters["hidden_bias"], 0)
    return features @ parameters["out"] + parameters["out_bias"]


def convolved(sequence: list[int], embedding: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(sites, filters): each filter at each site of a sequence, zeros beyond its ends."""
    width = len(weights) // embedding.shape[1]
    rows = []
    for site in range(len(sequence)):
        window = []
        for at in range(site - (width - 1) // 2, site - (width - 1) // 2 + width):
            window.append(embedding[sequence[at] if 0 <= at < len(sequence) else 0])
        rows.append(np.concatenate(window) @ weights + bias)
    return np.array(rows).reshape(len(sequence), len(bias))


def activated(values: np.ndarray, activation: str) -> np.ndarray:
    if activation == "relu":
        return np.maximum(values, 0)
    return np.tanh(values) if activation == "tanh" else (values > 0) * 1.0


def signs_on(sums: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Of sums (m, filters) and biases (signs, filters): which share of the sums + bias are above 0."""
    return np.array([[np.mean([s + own[f] > 0 for own in biases]) for f, s in enumerate(row)] for row in sums])


def sequence_features(activations: np.ndarray, tails: tuple[int, ...]) -> np.ndarray:
    """Signed logarithms of the sums over the whole and each span that ends the sequence, and of the spans' lengths."""
    spans = [activations] + [activations[max(0, len(activations) - size) :] for size in tails]
    sums = np.concatenate([span.sum(0) for span in spans])
    lengths = np.log1p([len(span) for span in spans])
    return np.concatenate([np.sign(sums) * np.log1p(np.abs(sums)), lengths])


def head_features(
    parameters: dict[str, np.ndarray], sequences: list[list[int]], tails: tuple[int, ...], activation: str
) -> np.ndarray:
    """Features of sequences of embedding rows by the convolution as it is written, without any counting."""
    rows = []
    for sequence in sequences:
        groups, group = [], 0
        while f"filters.{group}" in parameters:
            values = convolved(
                sequence, parameters["embedding"], parameters[f"filters.{group}"], parameters[f"bias.{group}"]
            )
            groups.append(activated(values, activation))
            group += 1
        rows.append(sequence_features(np.concatenate(groups, axis=1), tails))
    return np.array(rows)


def cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Mean over the rows of weight * sum over classes of -target * log probability."""
    total = 0.0
    for row, target, weight in zip(logits, targets, weights, strict=True):
        log_sum = np.log(np.exp(row - row.max()).sum()) + row.max()
        total += weight * float((target * (log_sum - row)).sum())
    return total / len(logits)


def adam(values: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float) -> np.ndarray:
    """Adam as Kingma and Ba write it (algorithm 1), betas 0.9 and 0.99, weight decay decoupled, in float64."""
    values, mean, square = values.astype(np.float64), 0.0, 0.0
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        corrected = np.sqrt(square) / np.sqrt(1 - 0.99**step) + 1e-8
        values = values * (1 - rate * decay) - rate * mean / (1 - 0.9**step) / corrected
    return values


def muon(values: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float, rounds: int) -> np.ndarray:
    """Muon as Jordan writes it, momentum 0.9 after Nesterov, in float64, by the singular values themselves.

    Polynomials as of Amsel et al. (2025), those of the first rounds.
    """
    polynomials = [
        (8.093369, -23.620432, 17.446153), (3.636586, -2.721927, 0.536546), (2.661300, -1.977155, 0.452616),
    ]  # fmt: skip
    values, momentum = values.astype(np.float64), 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        momentum = 0.9 * momentum + gradient
        left, sizes, right = np.linalg.svd(gradient + 0.9 * momentum, full_matrices=False)
        sizes = sizes / np.linalg.norm(sizes) / 1.01
        for a, b, c in polynomials[:rounds]:
            sizes = a * sizes + b * sizes**3 + c * sizes**5
        values = values * (1 - rate * decay) - 6 * rate * (left * sizes) @ right
    return values


def macro_f1(true: list[int], predicted: list[int]) -> float:
    """Mean over the classes that occur or are predicted."""
    scores = []
    for c in sorted(set(true) | set(predicted)):
        hits = sum(t == p == c for t, p in zip(true, predicted, strict=True))
        scores.append(2 * hits / (true.count(c) + predicted.count(c)))
    return sum(scores) / len(scores)


def ternary(weights: np.ndarray) -> np.ndarray:
    """Each column to -s, 0 and s (Li et al. 2016): small ones dropped, s the mean size of the rest."""
    out = np.zeros_like(weights, np.float64)
    for f, column in enumerate(weights.T.astype(np.float64)):
        kept = [abs(w) for w in column if abs(w) > 0.7 * np.abs(column).mean()]
        for i, w in enumerate(column):
            if abs(w) > 0.7 * np.abs(column).mean():
                out[i, f] = np.sign(w) * sum(kept) / len(kept)
    return out


def slopes(loss, values: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of loss(values) in each value."""
    out = np.empty_like(values, np.float64)
    for at in np.ndindex(values.shape):
        up, down = values.astype(np.float64), values.astype(np.float64)
        up[at] += step
        down[at] -= step
        out[at] = (loss(up) - loss(down)) / (2 * step)
    return out


def grid_convolved(
    image: np.ndarray, window: tuple[int, ...], stride: tuple[int, ...], padding: str, weights: np.ndarray
) -> np.ndarray:
    """(out_sites, filters) of one n-d example (*grid, channels), zeros beyond its edges, sites in row-major order."""
    shape, channels = image.shape[:-1], image.shape[-1]
    axes = [_axis_windows(*axis, padding) for axis in zip(shape, window, stride, strict=True)]
    rows = []
    for places in itertools.product(*axes):
        total = np.zeros(weights.shape[1])
        for number, site in enumerate(itertools.product(*places)):
            if all(0 <= at < size for at, size in zip(site, shape, strict=True)):
                total += image[site].astype(np.float64) @ weights[number * channels : (number + 1) * channels]
        rows.append(total)
    return np.array(rows)


def block_means(image: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The means over whole blocks of one n-d example (*grid, channels); sites that fill no block are left."""
    grid = [size // by for size, by in zip(image.shape[:-1], sizes, strict=True)]
    out = np.zeros((*grid, image.shape[-1]))
    for site in np.ndindex(*grid):
        for place in np.ndindex(*sizes):
            out[site] += image[tuple(s * by + p for s, by, p in zip(site, sizes, place, strict=True))] / np.prod(sizes)
    return out


def active(windows: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> list[list[bool]]:
    """Whether each window's sum is above each filter's threshold, in Python's integers.

    windows: (m, inputs), weights: (inputs, filters), thresholds: (filters,); all whole numbers.
    """
    return [
        [
            sum(int(x) * int(w) for x, w in zip(window, column, strict=True)) > int(threshold)
            for column, threshold in zip(weights.T, thresholds, strict=True)
        ]
        for window in windows
    ]


def least_squares_scale(weights: np.ndarray) -> float:
    """The least sum of squares that s * t leaves of weights (inputs,), over every t of -1, 0, +1 and the best s."""
    best = float((weights**2).sum())
    for choice in itertools.product((-1, 0, 1), repeat=len(weights)):
        t = np.array(choice, np.float64)
        if t.any():
            s = (weights @ t) / (t @ t)
            best = min(best, float(((weights - s * t) ** 2).sum()))
    return best


def last_sites(values, lengths, sites):
    """The last sites of each sequence, all for None."""
    found, start = [], 0
    for length in lengths:
        row = values[start : start + length]
        found.append(row if sites is None else row[max(0, length - sites) :])
        start += length
    return found
