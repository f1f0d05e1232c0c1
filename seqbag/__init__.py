"""seqbag: convolutional nets on logs and images, trained one layer at a time by counting patches.

`seqbag.load(path).predict(rows)` uses a model file; training is `seqbag.trainer.train`, or the command `seqbag`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqbag.predictor import Predictor

__version__ = "0.1.0"


def load(path: str | Path) -> Predictor:
    """Read a model file, or a packed model, to predict with. Raises ModelError with one line."""
    from seqbag.predictor import load  # numba and numpy are loaded when they are needed

    return load(path)
