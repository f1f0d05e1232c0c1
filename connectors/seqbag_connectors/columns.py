"""Which columns are read: what the user named, or what type and usual name tell; and the query that reads them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb

from seqbag.batch import InputKind
from seqbag.errors import DataError
from seqbag_connectors.engine import describe, identifier, literal, one_line
from seqbag_connectors.options import ReadOptions

USUAL_NAMES: dict[InputKind, tuple[str, ...]] = {
    "tokens": ("events", "tokens"),
    "text": ("message", "text", "line"),
    "image": ("img", "image"),
}
_TEXT = re.compile(r"^(VARCHAR|JSON|UUID|ENUM\(.*\))$", re.DOTALL)
_TOKENS = re.compile(r"^(VARCHAR|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|ENUM\(.*\))\[\d*\]$", re.DOTALL)
_PIXELS = re.compile(r"^UTINYINT\[\d*\]$")
_FLOATS = re.compile(r"^(FLOAT|DOUBLE|DECIMAL\(.*\))\[\d*\]$")
_STRUCT_OF_BYTES = re.compile(r"^STRUCT\((.*, )?\"?bytes\"? BLOB", re.DOTALL)
_NESTED = re.compile(r"^(STRUCT|MAP|UNION)\(|\]$|^(BLOB|BIT)$")
_IDENTIFIER = re.compile(r"^[A-Za-z_]\w*$")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The input and label as the user would write them (a column name or an expression), and the query over both."""

    kind: InputKind
    input: str
    label: str | None
    query: str
    class_names: tuple[str, ...] | None


def choose(
    con: duckdb.DuckDBPyConnection,
    name: str,
    options: ReadOptions,
    class_names: Callable[[str], tuple[str, ...] | None],
) -> Chosen:
    """Choose and check the columns of the relation `source` on `con` (or of `options.sql` over it).

    name: the source in messages. class_names: the names of a column of class numbers, where the files hold them.
    Raises DataError, naming the columns there are and the flag to use.
    """
    return _Chooser(con, name, options, class_names).choose()


class _Chooser:
    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        name: str,
        options: ReadOptions,
        class_names: Callable[[str], tuple[str, ...] | None],
    ) -> None:
        self._con, self._name, self._options, self._class_names = con, name, options, class_names
        self._relation = "source"
        if options.sql is not None:
            self._relation = f"(\n{options.sql.strip().rstrip(';')}\n) AS query"
        try:
            self._columns = describe(con, f"SELECT * FROM {self._relation}")
        except duckdb.Error as error:
            what = "--sql: " if options.sql is not None else ""
            raise DataError(f"{name}: {what}{one_line(error)}") from None

    def choose(self) -> Chosen:
        label = self._label()
        kind, given = self._input(label)
        input_sql = self._input_sql(kind, given)
        label_sql, names = self._label_sql(label) if label is not None else (None, None)
        query = f"SELECT {input_sql} AS input{f', {label_sql} AS label' if label_sql else ''} FROM {self._relation}"
        if self._options.where is not None:
            self._type("where", self._options.where)
            query += f" WHERE (\n{self._options.where}\n)"
        return Chosen(kind, given, label, query, names)

    def _label(self) -> str | None:
        if self._options.label is not None or not self._options.need_label:
            return self._options.label
        if "label" not in self._columns:
            raise DataError(f"{self._name}: no column `label`; name the label with --label. {self._listing()}")
        return "label"

    def _input(self, label: str | None) -> tuple[InputKind, str]:
        """The input the user named; else a usual name of the right type; else the only column of a fitting type."""
        for kind in USUAL_NAMES:
            given = getattr(self._options, kind)
            if given is not None:
                return kind, given
        for kind, usual in USUAL_NAMES.items():
            for column in usual:
                if column != label and column in self._columns and self._fits(kind, self._columns[column]):
                    return kind, column
        rest = [
            (kind, column)
            for column, kind in ((column, self._likely_kind(type_)) for column, type_ in self._columns.items())
            if kind is not None and column not in (label, "label")
        ]
        if len(rest) == 1:
            return rest[0]
        which = f"{len(rest)} columns could be the input" if rest else "no column holds text, lists or images"
        raise DataError(f"{self._name}: {which}; name one with --text, --tokens or --image. {self._listing()}")

    def _likely_kind(self, type_: str) -> InputKind | None:
        """What a column of an unusual name most likely is; uint8 lists are images only where a shape was given."""
        if _PIXELS.match(type_):
            return "image" if self._options.shape is not None else "tokens"
        return next((kind for kind in USUAL_NAMES if self._fits(kind, type_)), None)

    @staticmethod
    def _fits(kind: InputKind, type_: str) -> bool:
        if kind == "text":
            return _TEXT.match(type_) is not None
        if kind == "tokens":
            return _TOKENS.match(type_) is not None
        return type_ == "BLOB" or _PIXELS.match(type_) is not None or _STRUCT_OF_BYTES.match(type_) is not None

    def _input_sql(self, kind: InputKind, given: str) -> str:
        type_ = self._type(kind, given)
        if not self._fits(kind, type_):
            raise DataError(f"{self._name}: --{kind} {given} is {_short(type_)}; {_remedy(kind, given, type_)}")
        sql = self._sql(given)
        if kind == "text":
            return _as_text(sql, type_)
        if kind == "tokens":
            return f"CAST({sql} AS VARCHAR[])"
        return f"struct_extract({sql}, 'bytes')" if type_.startswith("STRUCT") else sql

    def _label_sql(self, label: str) -> tuple[str, tuple[str, ...] | None]:
        type_ = self._type("label", label)
        if _NESTED.search(type_):
            raise DataError(f"{self._name}: --label {label} is {_short(type_)}; a label is one text or number a row")
        sql = self._sql(label)
        own = label in self._columns and self._options.sql is None  # a query may call anything by that name
        names = self._class_names(label) if own else None
        if names is None or not type_.endswith(("INT", "INTEGER")):
            return _as_text(sql, type_), names
        listed = ", ".join(literal(name) for name in names)
        named = f"WHEN {sql} BETWEEN 0 AND {len(names) - 1} THEN list_extract([{listed}], {sql} + 1)"
        # -1 is how the hub marks a row without a label; a number beyond the names stays a number.
        return f"CASE {named} WHEN {sql} >= 0 THEN CAST({sql} AS VARCHAR) END", names

    def _sql(self, given: str) -> str:
        return identifier(given) if given in self._columns else f"(\n{given}\n)"

    def _type(self, flag: str, given: str) -> str:
        """The type of a column or an expression. Raises DataError where it cannot be bound."""
        if flag != "where" and given in self._columns:
            return self._columns[given]
        try:
            return next(iter(describe(self._con, f"SELECT (\n{given}\n) AS x FROM {self._relation}").values()))
        except duckdb.Error as error:
            if not _IDENTIFIER.match(given):
                raise DataError(f"{self._name}: --{flag} {' '.join(given.split())}: {one_line(error)}") from None
        near = difflib.get_close_matches(given, list(self._columns), n=3)
        meant = f" did you mean {' or '.join(f'`{column}`' for column in near)}?" if near else ""
        raise DataError(f"{self._name}: no column `{given}` for --{flag};{meant} {self._listing()}")

    def _listing(self, most: int = 30) -> str:
        names: Sequence[str] = list(self._columns)
        more = f" and {len(names) - most} more" if len(names) > most else ""
        return f"Columns: {', '.join(names[:most])}{more}"


def _as_text(sql: str, type_: str) -> str:
    """A value as text. JSON would be its own source, in quotes: of files whose values are of several types."""
    return f"({sql} ->> '$')" if type_ == "JSON" else f"CAST({sql} AS VARCHAR)"


def _remedy(kind: InputKind, given: str, type_: str) -> str:
    if kind == "image" and _FLOATS.match(type_):
        return f'pixels must be bytes: --image "list_transform({given}, x -> CAST(round(x * 255) AS UTINYINT))"'
    if kind == "image" and _TOKENS.match(type_):
        return f'pixels must be bytes: --image "CAST({given} AS UTINYINT[])"'
    if kind == "image":
        return "images are PNG or JPEG bytes, or lists of UTINYINT with --shape"
    if kind == "text" and _TOKENS.match(type_):
        return f"read it with --tokens {given}"
    if kind == "text":
        return f'try --text "decode({given})"' if type_ == "BLOB" else f'try --text "CAST({given} AS VARCHAR)"'
    if _TEXT.match(type_):
        return f"read it with --text {given}, or split it: --tokens \"string_split({given}, ' ')\""
    return "tokens are a list of texts or whole numbers"


def _short(type_: str) -> str:
    return type_ if len(type_) <= 60 else type_[:57] + "..."
