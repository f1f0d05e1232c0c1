"""Where rows come from: files, databases and streams behind the one protocol `seqbag.batch.Source`."""

from seqbag_connectors.opening import open_source
from seqbag_connectors.options import ReadOptions

__all__ = ["ReadOptions", "open_source"]
