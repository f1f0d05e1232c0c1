"""What can go wrong, and the exit code each kind has on the command line."""


class SeqbagError(Exception):
    """A failure a user can mend. Its text is one line that names the thing and the remedy.

    Names in it come from files and may hold anything: what cannot be printed in a line is escaped.
    """

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


class UsageError(SeqbagError):
    """An option or argument that makes no sense, alone or together with another."""

    exit_code = 2


class DataError(SeqbagError):
    """A source that cannot be read, or rows that cannot be trained or predicted on."""

    exit_code = 3


class ModelError(SeqbagError):
    """A model file or checkpoint that is damaged, foreign, or from a newer version."""

    exit_code = 4
