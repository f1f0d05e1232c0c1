"""The `seqbag` command."""
