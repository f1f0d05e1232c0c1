"""The data that seqbag and its peers are measured on: files, columns, tokenisers; and the same rows as plain text.

    python -m benchmarks.datasets NAME --data DIR --out DIR

writes train.txt and test.txt: a row a line, `__label__` and the label, then its tokens, all with spaces between them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROWS = {"train": "split <> 'test'", "test": "split = 'test'"}
_WORD = re.compile(r"\w+|[^\w\s]")
_GENERATOR = Path(__file__).parents[1] / "examples" / "generate_logs.py"


@dataclass(frozen=True)
class Dataset:
    """Rows of a Parquet file with a column `split`; column is a text, or a list where kind is `tokens`.

    measure: what is compared; macro-F1 where classes are so unequal that accuracy says little.
    """

    name: str
    file: str
    column: str
    kind: Literal["text", "tokens"] = "tokens"
    label: str = "label"
    tokenizer: Literal["words", "chars"] = "words"
    measure: Literal["accuracy", "macro_f1"] = "accuracy"

    @property
    def columns(self) -> list[str]:
        """Which columns are read, as options of `seqbag train` and `seqbag export`."""
        label = ["--label", self.label] if self.label != "label" else []
        return [f"--{self.kind}", self.column, *label]

    @property
    def options(self) -> list[str]:
        """Those, and the tokeniser, which a model keeps, as options of `seqbag train`."""
        return [*self.columns, *(["--tokenizer", self.tokenizer] if self.tokenizer != "words" else [])]

    @property
    def decimals(self) -> int:
        """Digits of the measure that are worth telling."""
        return 4 if self.measure == "accuracy" else 3

    @property
    def ngrams(self) -> int:
        """Longest n-grams for peers that take them."""
        return 5 if self.tokenizer == "chars" else 3


REAL = (
    Dataset("dga", "dga_domains.parquet", "sld", "text", tokenizer="chars"),
    Dataset("bpi", "bpi_challenge_2012.parquet", "events"),
    Dataset("bpi_complete", "bpi_challenge_2012_complete.parquet", "events"),
    Dataset("bpi_w", "bpi_challenge_2012_w.parquet", "events"),
    Dataset("helpdesk", "helpdesk.parquet", "events"),
    Dataset("adfa", "adfa_ld_syscalls.parquet", "events", measure="macro_f1"),
    Dataset("event", "loghub_2k.parquet", "content", "text", "event_id"),
    Dataset("system", "loghub_2k.parquet", "message", "text", "system"),
    Dataset("hdfs", "hdfs_100k_sessions.parquet", "events", measure="macro_f1"),
)
GENERATED = (
    Dataset("generated", "lines.parquet", "message", "text"),
    Dataset("generated_sessions", "sessions.parquet", "events"),
)


def generate(folder: Path, rows: int = 50_000) -> None:
    """Write lines.parquet and sessions.parquet of generated logs, a fifth of the sessions in split `test`."""
    import duckdb

    command = [sys.executable, str(_GENERATOR), "--rows", str(rows), "--seed", "1", "--split", "0.2", "--sessions"]
    subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    for name, suffix in (("lines", ""), ("sessions", "_sessions")):
        parts = " UNION ALL ".join(
            f"SELECT *, '{split}' AS split FROM read_parquet('{folder}/{split}{suffix}.parquet')" for split in ROWS
        )
        duckdb.sql(f"COPY ({parts}) TO '{folder}/{name}.parquet'")


def plain(dataset: Dataset, data: Path, out: Path) -> None:
    """Write train.txt and test.txt. Spaces inside labels and list elements become `_`."""
    import duckdb

    for split, where in ROWS.items():
        query = f"SELECT {dataset.label}, {dataset.column} FROM read_parquet('{data / dataset.file}') WHERE {where}"
        with (out / f"{split}.txt").open("w", encoding="utf-8") as file:
            rows = duckdb.connect().execute(query)
            while part := rows.fetchmany(10_000):
                file.writelines(f"__label__{_joined(str(y))} {' '.join(_tokens(dataset, x))}\n" for y, x in part)


def _tokens(dataset: Dataset, value: str | list[str]) -> list[str]:
    if isinstance(value, list):
        return [_joined(element) for element in value]
    return [_joined(c) for c in value] if dataset.tokenizer == "chars" else _WORD.findall(value.lower())


def _joined(text: str) -> str:
    return "_".join(text.split()) or "_"


def find(name: str) -> Dataset:
    return next(dataset for dataset in REAL + GENERATED if dataset.name == name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[dataset.name for dataset in REAL + GENERATED])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.name in {dataset.name for dataset in GENERATED}:
        generate(args.data)
    plain(find(args.name), args.data, args.out)


if __name__ == "__main__":
    main()
