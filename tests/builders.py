"""Small real files for tests: each helper writes one and returns its path."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MESSAGES = [f"session {i} opened for user {'äöü'[i % 3]}{i % 7}" for i in range(5000)]
LABELS = [("info", "warn", "error", None)[i * i % 11 % 4] for i in range(5000)]
EVENTS = [[f"e{(i * j) % 13}" for j in range(i % 6)] for i in range(5000)]


def table(rows: int = 5000) -> dict[str, Any]:
    """Columns `message`, `events`, `label` (some null) and `n`."""
    return {"message": MESSAGES[:rows], "events": EVENTS[:rows], "label": LABELS[:rows], "n": list(range(rows))}


def write_parquet(
    path: Path, columns: Mapping[str, Any], row_group_size: int = 1000, metadata: Mapping[str, str] | None = None
) -> Path:
    written = pa.table(dict(columns))
    if metadata is not None:
        written = written.replace_schema_metadata(dict(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(written, path, row_group_size=row_group_size)
    return path


def write_database(path: Path, columns: Mapping[str, Any], name: str = "logs") -> Path:
    with duckdb.connect(path) as con:
        con.register("given", pa.table(dict(columns)))
        con.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    return path


def write_lines(path: Path, lines: Sequence[str | bytes], end: bytes = b"\n") -> Path:
    """A log file, compressed as its suffix says."""
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + end for line in lines)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    return path


def damage_row_group(path: Path, group: int, column: int = 0) -> Path:
    """Overwrite the pages of one column of a row group."""
    chunk = pq.read_metadata(path).row_group(group).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    return path


def pictures(count: int, shape: tuple[int, int, int] = (32, 32, 3), seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def png(pixels: npt.NDArray[np.uint8], form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(out, form)
    return out.getvalue()


def stripes(rows: int, shape: tuple[int, ...], seed: int = 0) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Noise over stripes that run along one of the axes, which is the class; the last of shape is the channels."""
    rng, contrast = np.random.default_rng(seed), 90
    labels = rng.integers(0, len(shape) - 1, rows)
    phase = rng.integers(0, 4, rows)
    places = np.moveaxis(np.indices(shape[:-1]), 0, -1)  # (*grid, axes)
    along = np.moveaxis(places, -1, 0)[labels] + phase.reshape(-1, *[1] * (len(shape) - 1))
    bright = (along // 2 % 2 * contrast)[..., None]
    pixels = rng.integers(0, 256 - contrast, (rows, *shape)) + bright
    return pixels.astype(np.uint8), labels.tolist()


def write_hub_images(path: Path, pixels: npt.NDArray[np.uint8], labels: Sequence[int], names: Sequence[str]) -> Path:
    """The layout of the `datasets` hub: struct `img`, class numbers, names in the schema's metadata."""
    feature = json.dumps({"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}})
    images = [{"bytes": png(image), "path": None} for image in pixels]
    columns = {"img": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "label": labels}
    return write_parquet(path, columns, metadata={"huggingface": feature})


def write_cifar_binary(folder: Path, pixels: npt.NDArray[np.uint8], labels: Sequence[int], files: int = 2) -> Path:
    folder.mkdir()
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    rows = np.column_stack([np.array(labels, np.uint8), planes])
    for i, part in enumerate(np.array_split(rows, files), 1):
        (folder / f"data_batch_{i}.bin").write_bytes(part.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


def write_cifar_python(folder: Path, pixels: npt.NDArray[np.uint8], labels: Sequence[int], protocol: int = 2) -> Path:
    folder.mkdir()
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    for i, part in enumerate(np.array_split(np.arange(len(pixels)), 2), 1):
        batch = {b"batch_label": b"part", b"labels": [labels[j] for j in part], b"data": planes[part]}
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(batch, protocol=protocol))
    meta = {b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=protocol))
    return folder


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_changing(folder: Path) -> tuple[Path, Path]:
    """Rows of a process that turns into its opposite after three fifths of them; and the newest of the rows."""
    states = np.arange(10_000) % 2
    follows = np.where(np.arange(10_000) < 6_000, states, 1 - states)
    columns = {"message": np.array(["raised", "waiting"])[states], "label": np.array(["solved", "closed"])[follows]}
    newest = {name: values[-100:] for name, values in columns.items()}
    return write_parquet(folder / "rows.parquet", columns), write_parquet(folder / "newest.parquet", newest)
