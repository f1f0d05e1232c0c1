"""A 1-D CNN trained end to end in PyTorch: embedding 64, two convolutions of 128 filters 3 wide, max and mean pooling.

Adam with a one-cycle rate; 4 epochs over much data, 20 over little; sequences are cut to their last 512 tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.plaintext import Score, Settings, read, run, scored

BATCH, LENGTH, WORDS = 256, 512, 30_000


class Net(nn.Module):
    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 64, padding_idx=0)
        self.first, self.second = nn.Conv1d(64, 128, 3, padding=1), nn.Conv1d(128, 128, 3, padding=1)
        self.out = nn.Sequential(nn.Dropout(0.2), nn.Linear(256, classes))

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids > 0).unsqueeze(1)
        values = self.embedding(ids).transpose(1, 2)
        values = functional.relu(self.first(values)) * mask
        values = functional.relu(self.second(values)) * mask
        mean = values.sum(2) / mask.sum(2).clamp(min=1)
        return self.out(torch.cat([values.amax(2), mean], 1))


def numbered(texts: list[str], words: dict[str, int]) -> list[np.ndarray]:
    """Ids from 2; 0 pads, 1 is any word not seen in training."""
    return [np.array([words.get(w, 1) for w in text.split(" ")[-LENGTH:]], np.int64) for text in texts]


def batches(rows: list[np.ndarray], order: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Rows of like length together, padded; `order` breaks ties and shuffles the batches."""
    near = order[np.argsort([len(rows[i]) for i in order], kind="stable")]
    parts = [near[start : start + BATCH] for start in range(0, len(near), BATCH)]
    for number in np.random.default_rng(int(order[0])).permutation(len(parts)):
        part = parts[number]
        ids = np.zeros((len(part), max(len(rows[i]) for i in part)), np.int64)
        for row, i in enumerate(part):
            ids[row, : len(rows[i])] = rows[i]
        yield part, torch.from_numpy(ids)


def train(settings: Settings) -> None:
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    labels, texts = read(settings.folder / "train.txt")
    names, y = np.unique(labels, return_inverse=True)
    common = Counter(word for text in texts for word in text.split(" ")).most_common(WORDS)
    words = {word: number for number, (word, _) in enumerate(common, 2)}
    rows, target = numbered(texts, words), torch.from_numpy(y)
    epochs = 4 if len(rows) > 100_000 else 20 if len(rows) < 10_000 else 8
    net = Net(len(words) + 2, len(names))
    optimiser = torch.optim.Adam(net.parameters())
    steps = epochs * -(-len(rows) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    rng = np.random.default_rng(settings.seed)
    for _ in range(epochs):
        for part, ids in batches(rows, rng.permutation(len(rows))):
            optimiser.zero_grad()
            functional.cross_entropy(net(ids), target[part]).backward()
            optimiser.step()
            cycle.step()
    torch.save({"state": net.state_dict(), "words": words, "names": [str(n) for n in names]}, settings.folder / "model")


@torch.no_grad()
def predict(settings: Settings) -> Score:
    torch.set_num_threads(settings.threads)
    saved = torch.load(settings.folder / "model", weights_only=True)
    net = Net(len(saved["words"]) + 2, len(saved["names"]))
    net.load_state_dict(saved["state"])
    net.eval()
    labels, texts = read(settings.folder / "test.txt")

    def work() -> list[str]:
        rows, answers = numbered(texts, saved["words"]), np.empty(len(texts), np.int64)
        for part, ids in batches(rows, np.arange(len(rows))):
            answers[part] = net(ids).argmax(1).numpy()
        return [saved["names"][c] for c in answers]

    return scored(labels, work)


if __name__ == "__main__":
    run(train, predict)
