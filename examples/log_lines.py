"""Made-up but realistic log lines in blocks: the catalogue of log_templates.toml, drawn from and rendered by columns.

A block of 100,000 lines depends on nothing but the seed and its number. Its sessions are runs of lines; a session has
an incident or none; inside the incident's window most lines are of the incident's shapes, the others are ordinary.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints: TypeAlias = npt.NDArray[np.int64]

BLOCK_ROWS = 100_000
BLOCK_SECONDS = 900
FIRST_SECOND = 1_767_571_200  # 2026-01-05 00:00:00 UTC, in Unix time
NORMAL = 0  # the first state of the catalogue
MEAN_SESSION, LONGEST_SESSION = 20, 200  # lines
AFFECTED = 0.88  # of the lines inside an incident's window; the others are ordinary
MISLABELLED = 0.015  # of the lines inside a window: annotators miss some, and count ordinary ones in
HOME = 25.0  # how much likelier a session's line is from the services of its kind than from another
HOSTS = 8  # per service
NOTHING_BETWEEN = pa.scalar("")

LINE_SCHEMA = pa.schema(
    [
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("session", pa.string()),
        ("host", pa.string()),
        ("service", pa.string()),
        ("level", pa.string()),
        ("event", pa.string()),
        ("message", pa.string()),
        ("label", pa.string()),
    ]
)


@dataclass(frozen=True)
class Line:
    """One shape of line: its message as literal text and fields by turns."""

    event: str
    service: int
    level: str
    pieces: list[Any]  # text, field, text, field, ..., text; a text as Arrow scalar, a field by its name


@dataclass(frozen=True)
class Catalogue:
    """log_templates.toml, read: what there is to draw from and how often."""

    states: list[str]
    state_share: npt.NDArray[np.float64]  # (states,) sums to 1
    services: list[str]
    hosts: pa.Array  # (services * HOSTS,)
    lines: list[Line]
    draw: npt.NDArray[np.float64]  # (kinds, states, lines) cumulative probability
    fields: dict[str, str]
    pools: dict[str, pa.Array]  # the words a field is drawn from; written out in a message, it goes by its own text


@dataclass(frozen=True)
class Context:
    """The rows that share one shape of line, while their messages are made."""

    rng: np.random.Generator
    rows: int
    columns: dict[str, pa.Array]  # fields that are known beforehand: the session's client, the time, ...


def split_fields(text: str, fields: dict[str, str]) -> list[Any]:
    """Cut `text` at its {fields}, those made of other fields replaced by their own text."""
    while (opened := re.sub(r"\{(\w+)\}", lambda found: fields.get(found[1], found[0]), text)) != text:
        text = opened
    pieces = re.split(r"\{([^{}]*)\}", text)
    return [piece if number % 2 else pa.scalar(piece) for number, piece in enumerate(pieces)]


def read_catalogue() -> Catalogue:
    """Read the shapes of lines and turn their weights into cumulative probabilities."""
    data: dict[str, Any] = tomllib.loads(Path(__file__).with_name("log_templates.toml").read_text(encoding="utf-8"))
    states, services = list(data["states"]), list(data["services"])
    lines: list[Line] = []
    weights: list[npt.NDArray[np.float64]] = []
    for number, (service, entry) in enumerate(data["services"].items()):
        for event, level, shares, message in entry["lines"]:
            weight = np.zeros(len(states))
            for share in shares.split(", "):
                state, value = share.split(" ")
                weight[states.index(state)] = float(value)
            weights.append(weight)
            lines.append(Line(f"{service}.{event}", number, level, split_fields(message, data["fields"])))
    by_state = np.stack(weights, axis=1)  # (states, lines)
    home = np.array([[line.service in map(services.index, kind) for line in lines] for kind in data["kinds"].values()])
    drawn = by_state * np.where(home, HOME, 1.0)[:, None, :]  # (kinds, states, lines)
    pools = {name: pa.array(words) for name, words in data["pools"].items()}
    pieces = {piece for line in lines for piece in line.pieces if isinstance(piece, str)}
    pools |= {piece: pa.array(piece.split("|")) for piece in pieces if "|" in piece}
    share = np.array(list(data["states"].values()), dtype=np.float64)
    return Catalogue(
        states=states,
        state_share=share / share.sum(),
        services=services,
        hosts=pa.array([f"{data['services'][name]['hosts']}-{n:02}" for name in services for n in range(1, HOSTS + 1)]),
        lines=lines,
        draw=np.cumsum(drawn / drawn.sum(axis=2, keepdims=True), axis=2),
        fields=data["fields"],
        pools=pools,
    )


def column(values: Ints) -> pa.Array:
    """An Arrow column over the same memory; `pa.array` looks for pandas at each call, which costs more than a row."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def hex_column(rng: np.random.Generator, rows: int, digits: int, dashes: tuple[int, ...] = ()) -> pa.Array:
    """`rows` strings of random hex digits, with a dash at each of the places `dashes`."""
    width = digits + len(dashes)
    text = np.frombuffer(b"0123456789abcdef", np.uint8)[rng.integers(0, 16, (rows, width), dtype=np.uint8)]
    text[:, dashes] = ord("-")
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))


def field_column(name: str, context: Context, pools: dict[str, pa.Array]) -> pa.Array:
    """The values of one field, (context.rows,) string."""
    rng, rows = context.rng, context.rows
    if name in context.columns:
        return context.columns[name]
    if name == "uuid":
        return hex_column(rng, rows, 32, dashes=(8, 13, 18, 23))
    if found := re.fullmatch(r"hex(\d+)", name):
        return hex_column(rng, rows, int(found[1]))
    if found := re.fullmatch(r"(\d+)-(\d+)", name):
        return column(rng.integers(int(found[1]), int(found[2]) + 1, rows)).cast(pa.string())
    if found := re.fullmatch(r"~(\d+)", name):
        values = np.exp(rng.normal(np.log(float(found[1])), 1.1, rows)).astype(np.int64)
        return column(values).cast(pa.string())
    words = pools[name]
    return words.take(column(rng.integers(0, len(words), rows)))


def render(pieces: list[Any], context: Context, pools: dict[str, pa.Array]) -> pa.Array:
    """The messages of one shape of line, (context.rows,) string."""
    if len(pieces) == 1:
        return pa.repeat(pieces[0], context.rows)
    made = [field_column(piece, context, pools) if isinstance(piece, str) else piece for piece in pieces]
    return pc.binary_join_element_wise(*made, NOTHING_BETWEEN)


def plan_sessions(catalogue: Catalogue, rng: np.random.Generator) -> tuple[dict[str, Ints], dict[str, Any]]:
    """Draw a block's sessions and each line's place in them.

    Returns columns of lines (session, microsecond, state, label, shape), each (BLOCK_ROWS,), and of sessions
    (state, held: its share of [0, 1) for splitting), of which there are as many as the block holds.
    """
    lengths = np.minimum(4 + rng.geometric(1 / (MEAN_SESSION - 4), BLOCK_ROWS // 5), LONGEST_SESSION)
    sessions = int(np.searchsorted(np.cumsum(lengths), BLOCK_ROWS)) + 1  # the last one is cut where the block ends
    session = np.repeat(np.arange(sessions), lengths[:sessions])[:BLOCK_ROWS]
    first = np.concatenate([[0], np.cumsum(lengths[: sessions - 1])])
    place = (np.arange(BLOCK_ROWS) - first[session] + 0.5) / lengths[session]  # in (0, 1)

    state = rng.choice(len(catalogue.states), sessions, p=catalogue.state_share)
    window = (rng.uniform(0.0, 0.3, sessions), rng.uniform(0.75, 1.0, sessions))
    inside = (place > window[0][session]) & (place < window[1][session])
    affected = inside & (rng.random(BLOCK_ROWS) < AFFECTED)
    seen = affected ^ (inside & (rng.random(BLOCK_ROWS) < MISLABELLED))
    line_state = np.where(affected, state[session], NORMAL)

    start = np.sort(rng.integers(0, BLOCK_SECONDS * 1_000_000, sessions))
    waited = np.cumsum(1 + rng.exponential(700_000, BLOCK_ROWS).astype(np.int64))
    kinds, states, shapes = catalogue.draw.shape
    row = rng.integers(0, kinds, sessions)[session] * states + line_state
    steps = catalogue.draw.reshape(kinds * states, shapes) + np.arange(kinds * states)[:, None]
    shape = np.searchsorted(steps.ravel(), row + rng.random(BLOCK_ROWS), side="right") - row * shapes
    lines = {
        "session": session,
        "microsecond": start[session] + waited - waited[first][session],
        "label": np.where(seen, state[session], NORMAL),
        "shape": np.minimum(shape, shapes - 1),
    }
    return lines, {"state": state, "held": rng.random(sessions)}


def time_columns(seconds: Ints) -> dict[str, pa.Array]:
    """The fields of each line that tell the time, formatted once for each second of the block."""
    base = int(seconds.min())
    ticks = column(np.arange(base, int(seconds.max()) + 1)).cast(pa.timestamp("s"))
    at = column(seconds - base)
    formats = {"iso_time": "%Y-%m-%dT%H:%M:%S", "nginx_time": "%d/%b/%Y:%H:%M:%S +0000"}
    return {name: pc.strftime(ticks, format=text).take(at) for name, text in formats.items()}


def generate_block(catalogue: Catalogue, seed: int, index: int) -> tuple[pa.Table, npt.NDArray[np.float64]]:
    """Block `index` of the stream of `seed`: its lines (LINE_SCHEMA), and for each its session's share of [0, 1)."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    lines, sessions = plan_sessions(catalogue, rng)
    count = len(sessions["state"])
    every_session = Context(rng, count, {})
    session = column(lines["session"])
    people = {
        name: render(split_fields(text, catalogue.fields), every_session, catalogue.pools).take(session)
        for name, text in (("client", "{ip}"), ("user", "{person}"))
    }
    microsecond = lines["microsecond"] + (FIRST_SECOND + index * BLOCK_SECONDS) * 1_000_000
    known = people | time_columns(microsecond // 1_000_000)

    shape = lines["shape"]
    order = np.argsort(shape, kind="stable")  # rows of one shape together, to be made together
    known = {name: values.take(column(order)) for name, values in known.items()}
    bounds = np.searchsorted(shape[order], np.arange(len(catalogue.lines) + 1))
    made: list[pa.Array] = []
    for line, begin, end in zip(catalogue.lines, bounds, bounds[1:], strict=False):
        if begin < end:
            columns = {name: values.slice(begin, end - begin) for name, values in known.items()}
            made.append(render(line.pieces, Context(rng, int(end - begin), columns), catalogue.pools))
    back = np.empty_like(order)
    back[order] = np.arange(BLOCK_ROWS)

    def by_shape(values: list[str]) -> pa.Array:
        return pa.array(values).take(column(shape))

    service = np.array([line.service for line in catalogue.lines])[shape]
    host = service * HOSTS + rng.integers(0, HOSTS, count)[lines["session"]]
    table = pa.table(
        [
            column(microsecond).cast(LINE_SCHEMA.field("timestamp").type),
            hex_column(rng, count, 16).take(session),
            catalogue.hosts.take(column(host)),
            by_shape([catalogue.services[line.service] for line in catalogue.lines]),
            by_shape([line.level for line in catalogue.lines]),
            by_shape([line.event for line in catalogue.lines]),
            pa.concat_arrays(made).take(column(back)),
            pa.array(catalogue.states).take(column(lines["label"])),
        ],
        schema=LINE_SCHEMA,
    )
    return table, sessions["held"][lines["session"]]
