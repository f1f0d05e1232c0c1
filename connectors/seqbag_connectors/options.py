"""What a user may say about how a source is read."""

from __future__ import annotations

from dataclasses import dataclass

from seqbag.errors import UsageError

DEFAULT_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How a source is read; what is left None is found by type and usual name.

    sql: the query that is read instead of the whole source, which it may call `source`.
    where: a condition over the columns, pushed down into the files.
    text, tokens, image: the input as a column name or an expression; at most one of them.
    label: the label as a column name or an expression (default: the column `label`).
    shape: (height, width, channels) of raw pixels; checked against decoded ones.
    need_label: False where rows are only predicted; the label is then read only if named.
    memory_bytes, threads: bounds on the query engine and on image decoding.
    skip_bad: leave out Parquet row groups that cannot be read, counting them, instead of stopping.
    """

    sql: str | None = None
    where: str | None = None
    text: str | None = None
    tokens: str | None = None
    image: str | None = None
    label: str | None = None
    shape: tuple[int, ...] | None = None
    need_label: bool = True
    memory_bytes: int = DEFAULT_MEMORY
    threads: int = 1
    skip_bad: bool = False

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("text", "tokens", "image") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other: name one input")
        if self.shape is not None and (len(self.shape) < 3 or min(self.shape) < 1):
            raise UsageError(f"--shape {','.join(map(str, self.shape))}: give HEIGHT,WIDTH,CHANNELS, each at least 1")
        if self.threads < 1:
            raise UsageError(f"--threads {self.threads}: at least 1 is needed")
        for name in ("sql", "where", "text", "tokens", "image", "label"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise UsageError(f"--{name} is empty: give a column or an expression, or leave it out")
