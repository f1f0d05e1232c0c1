"""The cases of `benchmarks.fuzz`: each made from a random generator, then worked on or refused."""

from __future__ import annotations

import copy
import io
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from seqbag import packed, quantise, store
from seqbag.batch import ImageColumn, Rows, TextColumn
from seqbag.checkpoint import Checkpoint
from seqbag.config import TrainConfig
from seqbag.network import Network
from seqbag.tensors import Arrays
from seqbag.tokens import Encoder, Vocabulary
from seqbag.trainer import train
from seqbag_connectors import open_source
from seqbag_connectors.arrow import text_column
from seqbag_connectors.lines import LineSplitter

Rng = np.random.Generator
PIECES = [
    b"\x00", b"\xff\xfe", b"\xc3", b"\xe2\x82\xac", b"\xf0\x9f\x92\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n",
    b"\t", b" ", b"=", b"/", b"\\", b".", b":", b"-", b"@", b"%", b"0x", b"127.0.0.1", b"fe80::1%eth0", b"::", b"1e309",
    b"2024-02-30T25:61:61Z", b"00:00", b"550e8400-e29b-41d4-a716-446655440000", b"a@b.c", b"/var/log/x.1.gz", b"0" * 70,
    b"word", "\u0130\u0308".encode(), "\u202e".encode(), b"{", b'"', b"'", b"$(", b"-1", b"9" * 40, b"deadbeef",
]  # fmt: skip
STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2,
    31,
    10**9,
    2**63,
    1.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "tail:8",
    [],
    [0],
    {},
]


def messages(rng: Rng, rows: int) -> list[str]:
    words = ["disk", "login", "full", "failed", "10.0.0.1", "42", "ok", "user=root"]
    return [" ".join(rng.choice(words, rng.integers(1, 7))) for _ in range(rows)]


def learned(layers: int, rows: int, checkpoint: Checkpoint | None = None, path: Path | None = None) -> store.Model:
    """A small model of two classes, trained on made-up lines."""
    rng = np.random.default_rng(0)
    texts = messages(rng, rows)
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="seqbag-fuzz-")) / "rows.parquet"
    if not path.exists():
        pq.write_table(pa.table({"message": texts, "label": ["fail" if "f" in text else "ok" for text in texts]}), path)
    trained = train(open_source(str(path)), settings(layers), checkpoint=checkpoint)
    return trained.model({"kind": "text", "input": "message", "label": "label"})


def learned_images(path: Path) -> store.Model:
    """A small model of two classes of dark and bright images, 4 x 4 and grey, whose two layers vote."""
    labels = np.arange(60) % 2
    pixels = (np.random.default_rng(0).integers(0, 128, (60, 16)) + 127 * labels[:, None]).astype(np.uint8)
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), 16)
    pq.write_table(pa.table({"image": column, "label": labels}), path)
    config = TrainConfig.for_kind(
        "image", layers=2, filters=(4,), hidden=4, readout=3, polish=1, epochs=1, activation="sign"
    )
    trained = train(open_source(str(path), shape=(4, 4, 1)), config)
    return trained.model({"kind": "image", "input": "image", "label": "label"})


def settings(layers: int) -> TrainConfig:
    return TrainConfig(layers=layers, filters=(4,), dims=8, hidden=4, vocabulary=256, epochs=1, activation="sign")


# -- what is done to bytes and to what they hold


def damaged(rng: Rng, data: bytes, head: int = 0) -> bytes:
    """Bytes flipped, cut, doubled or put in. head: of the first bytes, which are hit half of the time."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        most = min(len(out), head) if head and rng.random() < 0.5 else len(out)
        at = int(rng.integers(0, max(1, most)))
        match int(rng.integers(0, 8)):
            case 0 | 1 | 2 if at < len(out):
                out[at] ^= int(rng.integers(1, 256))
            case 3 if at < len(out):
                out[at] = int(rng.choice(list(b'0123456789-e.[]{},:"')))
            case 4:
                del out[at : at + int(rng.integers(1, 64))]
            case 5:
                out[at:at] = rng.bytes(int(rng.integers(1, 32)))
            case 6:
                out[at : at + 8] = struct.pack("<q", int(rng.choice([-1, 0, 1, 2**31, 2**62, len(out)])))
            case 7 if rng.random() < 0.3:
                del out[at:]
    return bytes(out)


def ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way] * bool(way) + [found for key, inner in items for found in ways(inner, (*way, key))]


def lied(rng: Rng, description: dict[str, Any], arrays: Arrays) -> None:
    """Change a value of the description, or an array's content, type or shape, in place."""
    if rng.random() < 0.4:
        found = ways(description)
        *way, last = found[int(rng.integers(0, len(found)))]
        target: Any = description
        for key in way:
            target = target[key]
        target[last] = copy.deepcopy(STRANGE[int(rng.integers(0, len(STRANGE)))])  # the next lie may be told in it
        return
    name = str(rng.choice(sorted(arrays)))
    array = np.array(arrays[name])
    match int(rng.integers(0, 6)):
        case 0:
            del arrays[name]
            return
        case 1:
            array = array[:-1] if array.ndim else array
        case 2:
            array = array.astype(rng.choice(["f4", "i4", "i8", "u1"]))
        case 3:
            array = array[None]
        case 4 if array.nbytes:
            bits = array.reshape(-1).view(np.uint8)
            bits[int(rng.integers(0, len(bits)))] ^= int(rng.integers(1, 256))
        case _ if array.size:
            with np.errstate(all="ignore"):
                wild = rng.choice(np.array([0, 1, -1, 127, 2**31 - 1, -(2**31), 1e30, -1e-40])).astype(array.dtype)
            array.reshape(-1)[int(rng.integers(0, array.size))] = wild
    arrays[name] = np.ascontiguousarray(array)


def rewritten(rng: Rng, data: bytes, key: str) -> bytes:
    """A file of ours whose header is in order and whose content is not."""
    size = int.from_bytes(data[:8], "little")
    description = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][key])
    arrays = safetensors.numpy.load(data)
    for _ in range(int(rng.integers(1, 4))):
        if arrays and description:
            lied(rng, description, arrays)
    return safetensors.numpy.save(arrays, {key: json.dumps(description)})


def text_of(rng: Rng) -> bytes:
    """Random bytes, awkward pieces, or a damaged line."""
    match int(rng.integers(0, 3)):
        case 0:
            return bytes(rng.bytes(int(rng.integers(0, 200))))
        case 1:
            return b"".join(PIECES[i] for i in rng.integers(0, len(PIECES), rng.integers(0, 30)))
        case _:
            return damaged(rng, messages(rng, 1)[0].encode())


# -- the kinds: each makes its material once, and gives what runs a case


def fuzz_text(folder: Path) -> Callable[[Rng], None]:
    """A case is one text: as a line of a stream, raw, through each tokeniser, and through a model."""
    network = learned(2, 400).network
    encoders = [Encoder(name, 256) for name in ("words", "chars", "bytes")]

    def run(rng: Rng) -> None:
        raw = text_of(rng)
        splitter = LineSplitter()
        cut = int(rng.integers(min(3, len(raw)), len(raw) + 1))  # not within a mark of byte order
        lines = [*splitter.feed(raw[:cut]), *splitter.feed(raw[cut:]), *splitter.finish()]
        rest = raw.removeprefix(b"\xef\xbb\xbf")
        assert sum(map(len, lines)) == rest.count(b"\n") + (not rest.endswith(b"\n") and rest != b"")
        column = TextColumn(np.frombuffer(raw + b"x", np.uint8), np.array([0, len(raw)], np.int64))
        for encoder in encoders:
            ids, offsets, spans = encoder.locate(column)
            assert len(ids) == offsets[-1]
            assert not len(ids) or 0 <= ids.min() <= ids.max() < 256
            Vocabulary(256).update(ids, spans)
        for part in (column, *lines):
            probabilities(network, part)

    return run


def probabilities(network: Network, column: TextColumn | ImageColumn, finite: bool = True) -> None:
    with np.errstate(all="ignore"):
        answer: npt.NDArray[np.float32] = network.probabilities(column)
    assert answer.shape == (len(column), len(network.classes))
    assert not finite or np.isfinite(answer).all()


def fuzz_parquet(folder: Path) -> Callable[[Rng], None]:
    """A case is a damaged file, opened, and read to its end if it opens."""
    texts, files = messages(np.random.default_rng(0), 120), []
    table = pa.table({"message": texts, "label": ["fail" if "f" in text else "ok" for text in texts]})
    for compression in ("snappy", "zstd", "none"):
        for dictionary in (True, False):
            out = io.BytesIO()
            pq.write_table(table, out, row_group_size=40, compression=compression, use_dictionary=dictionary)
            files.append(out.getvalue())
    path = folder / "case.parquet"

    def run(rng: Rng) -> None:
        data = files[int(rng.integers(0, len(files)))]
        footer = int.from_bytes(data[-8:-4], "little") + 8
        body = data[:-footer] if rng.random() < 0.5 else b""  # most of what can be misread is in the footer
        path.write_bytes(body + damaged(rng, data[len(body) : -8]) + data[-8:])
        source = open_source(str(path), skip_bad=bool(rng.random() < 0.3), memory_bytes=1 << 28)
        for rows in source.batches(8192):
            used(rows)

    return run


def used(rows: Rows) -> None:
    assert isinstance(rows.input, TextColumn)
    ids, _, _ = Encoder("words", 256).locate(rows.input)
    assert rows.labels is not None
    assert len(rows.labels.codes) == len(rows)
    assert not len(ids) or ids.max() < 256


def fuzz_models(folder: Path) -> Callable[[Rng], None]:
    """A case is a damaged model file, of text or of images, loaded, and used if it loads."""
    models = [learned(1, 400), learned(2, 400), learned_images(folder / "images.parquet")]
    return _models(folder, [store.to_bytes(model) for model in models], store.load, "seqbag", False)


def fuzz_packed(folder: Path) -> Callable[[Rng], None]:
    """The same of packed models, of text and of images, whose answers must be numbers, too."""
    files = []
    for model in (learned(2, 400), learned_images(folder / "images.parquet")):
        for weights in quantise.WEIGHTS:
            kind = quantise.Kind(weights, "sign")
            network = quantise.quantise(model.network, kind)
            files.append(packed.to_bytes(store.Model(network, model.columns, model.report), kind))
    return _models(folder, files, packed.load, packed.KEY, True)


def _models(
    folder: Path, files: list[bytes], load: Callable[[Path], Any], key: str, finite: bool
) -> Callable[[Rng], None]:
    texts = text_column(pa.array(["", "disk full", "never seen", "x" * 300, "login failed 42"], pa.large_string()))
    path = folder / "case.seqbag"

    def run(rng: Rng) -> None:
        data = files[int(rng.integers(0, len(files)))]
        head = 8 + int.from_bytes(data[:8], "little")
        path.write_bytes(rewritten(rng, data, key) if rng.random() < 0.6 else damaged(rng, data, head))
        network = load(path).network
        images = network.lookup is None and network.shape and np.prod(network.shape) <= 1 << 20
        column = ImageColumn(np.full((2, *network.shape), 255, np.uint8)) if images else texts
        probabilities(network, column, finite)

    return run


def fuzz_checkpoints(folder: Path) -> Callable[[Rng], None]:
    """A case is the folder of a run killed in its second layer, damaged, and gone on from: only if nothing was lost."""
    rows, work = folder / "rows.parquet", folder / "work"
    model = store.to_bytes(learned(2, 400, path=rows))
    identity = settings(2).to_json()
    kept: dict[str, bytes] = {}

    class Snapshot(Checkpoint):
        """Keeps what the folder held after the first checkpoint of the second layer."""

        def save(self, state: tuple[dict[str, Any], Arrays]) -> None:
            super().save(state)
            if not kept and state[0]["pass"] == 1 and state[0]["counting"]:
                kept.update({path.name: path.read_bytes() for path in self.folder.iterdir()})

    with Snapshot(work, identity, every=0) as checkpoint:
        learned(2, 400, checkpoint, rows)
    names = [name for name in kept if name != "lock"]

    def run(rng: Rng) -> None:
        hit = str(rng.choice(names))
        for name, data in kept.items():
            head = 8 + int.from_bytes(data[:8], "little")
            (work / name).write_bytes(damaged(rng, data, head) if name == hit else data)
        with Checkpoint(work, identity, every=1e9, resume=True) as checkpoint:
            assert store.to_bytes(learned(2, 400, checkpoint, rows)) == model, "another model"

    return run


KINDS = {"text": fuzz_text, "parquet": fuzz_parquet, "models": fuzz_models, "packed": fuzz_packed,
         "checkpoints": fuzz_checkpoints}  # fmt: skip
