"""Text logs: where lines end, what cannot be decoded or decompressed, and sessions made of lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbag_connectors import open_source
from seqbag_connectors.lines import LineSplitter
from tests.builders import MESSAGES, write_lines
from tests.contracts import all_rows, text_values
from tests.opened import refusal, table_source


@given(
    st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_lines_are_split_as_python_would(lines: list[bytes], end: bytes, last: bool, step: int) -> None:
    data = end.join(lines) + (end if last else b"")
    splitter = LineSplitter()
    found = [t for at in range(0, len(data), step) for c in splitter.feed(data[at : at + step]) for t in text_values(c)]
    found += [t for c in splitter.finish() for t in text_values(c)]
    expected = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if expected[-1] == b"":
        del expected[-1]
    if not data.startswith(b"\xef") or step >= 3:  # a byte order mark is only looked for in one piece
        assert found == [line.removesuffix(b"\r").decode(errors="replace") for line in expected]
        good = b"".join(expected).decode(errors="ignore")
        assert (splitter.replaced > 0) == (len(good.encode()) < len(b"".join(expected)))


def test_undecodable_bytes_are_replaced_and_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log", [b"caf\xe9 \xff", "fine", b"nul \x00 \xf0\x9f"])
    source = table_source(path, need_label=False)
    expected = ["caf\ufffd \ufffd", "fine", "nul \x00 \ufffd"]
    assert [value for value, _ in all_rows(source)] == expected
    assert source.replaced == 3
    assert "3 undecodable byte sequences replaced" in source.describe()


def test_a_file_of_one_endless_line_is_cut(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log.gz", [b"x" * (40 << 20), b"end"])
    lengths = [len(value) for value, _ in all_rows(open_source(str(path), need_label=False))]
    assert sum(lengths) == (40 << 20) + 3
    assert max(lengths) < 24 << 20


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_broken_tail_is_named(suffix: str, tmp_path: Path) -> None:
    good = write_lines(tmp_path / "a.log", ["fine"])
    path = write_lines(tmp_path / f"b.log.{suffix}", MESSAGES)
    path.write_bytes(path.read_bytes()[:-40])
    message = refusal(tmp_path / "*.log*", need_label=False)
    assert message.startswith(f"{path}: cannot be read to its end")
    assert good.exists()


def test_sessions_are_built_from_log_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log", [f"{i % 3} event{i}" for i in range(9)])
    sql = """SELECT split_part(line, ' ', 1) AS session, list(split_part(line, ' ', 2) ORDER BY line_number) AS events,
             session AS label FROM source GROUP BY session ORDER BY session"""
    expected = [((f"event{i}", f"event{i + 3}", f"event{i + 6}"), str(i)) for i in range(3)]
    assert all_rows(open_source(str(path), sql=sql)) == expected


def test_a_query_may_read_the_lines_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log", ["a", "b"])
    sql = "SELECT l.line || r.line AS text FROM source l, source r ORDER BY ALL"
    assert [v for v, _ in all_rows(open_source(str(path), sql=sql, need_label=False))] == ["aa", "ab", "ba", "bb"]
