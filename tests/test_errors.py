"""Errors are one line, whatever the names in them hold."""

from pathlib import Path

import pytest

from seqbag.errors import DataError, ModelError, SeqbagError, UsageError
from seqbag_connectors import open_source
from tests.builders import write_parquet


@pytest.mark.parametrize("kind", [SeqbagError, UsageError, DataError, ModelError])
def test_what_cannot_be_printed_in_a_line_is_escaped(kind: type[SeqbagError]) -> None:
    given = "no column `a\nb\x1b[31m\u2028\ud800\tü`: name it"
    assert str(kind(given)) == "no column `a\\nb\\x1b[31m\\u2028\\ud800\\tü`: name it"


def test_a_column_whose_name_has_two_lines(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", {"mess\nage": ["a", "b"], "fabel": ["x", "y"]})
    with pytest.raises(DataError) as error:
        open_source(str(path))
    assert "mess\\nage" in str(error.value)
    assert "\n" not in str(error.value)
