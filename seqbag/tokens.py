"""Text to token ids, hashed into a fixed vocabulary, and the statistic that turns ids back into text.

An id is `1 + mix(fnv1a(token)) % (vocabulary - 1)`: FNV-1a of 64 bits (offset cbf29ce484222325, prime 100000001b3)
over the token's bytes, then MurmurHash3's 64-bit finaliser. It has no seed, so every site, machine and version agrees.
Id 0 is padding.

Tokenisers: `chars` makes a token of each code point (of each byte that is not UTF-8), `bytes` of each byte, `list` of
each element of a list column. `words` is for log lines. Letters (any byte from 0x80 on is one) and digits make runs,
everything else separates and is dropped; ASCII letters are lower-cased, CamelCase stays whole. What varies from line to
line is masked:

| in the line                                                                            | token     |
|----------------------------------------------------------------------------------------|-----------|
| clock `18:01:47[,978][Z or +0200]`; date `2015-10-18`, `17/06/09`, `18.10.2015`,        | its shape |
| `18/Oct/2015`; the two joined by one of ` T-_:` (then also `18:01` and `18.01.47`);     |           |
| `03-17 16:13:47`, `20171223-22:15:29`, `[Sun, ]Jul  7 [2005] 14:03:05 [2005]`           |           |
| IPv4; IPv6 with a digit in it                                                          | `<ip>`    |
| six pairs of hexadecimal digits, `00:1b:44:11:3a:b7`                                   | `<mac>`   |
| `8-4-4-4-12` hexadecimal digits                                                        | `<uuid>`  |
| letters, digits and `._-+%~$` before an @ and a domain with a dot                       | `<email>` |
| digits: more than three, or in a path, or with decimals (`2.77`)                       | `<num>`   |
| `0x` and hexadecimal digits; seven or more hexadecimal digits, letters and figures mixed | `<hex>`   |
| another run with three or more groups of digits (`k3j9x2`)                              | `<id>`    |
| another run with a digit, in a path (after `/` or `\\`, up to the next other separator)   | `<path>`  |
| another run with a digit: a word for each group of letters, a number for each of digits | `cn` `733` |
| any other run, and numbers of up to three digits (status codes, levels)                | itself    |

The shape of a time has `#` for each group of figures, `a` for each of letters, and one space for several:
`<#-#-# #:#:#,#>`, `<a # #:#:#>`. When is forgotten; the format, which tells systems apart, is kept.

So `10.250.19.102:50010` is `<ip> <num>`, `blk_-1678953999018234643` is `blk <num>`, `user=root` is `user root`, `cn733`
is `cn 733`, `R02-M1-N0` is `r 02 m 1 n 0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from seqbag.batch import Int32s, Int64s, TextColumn, TokensColumn, UInt8s
from seqbag.errors import DataError, ModelError, UsageError
from seqbag.kernels import tokenise, tokentext
from seqbag.kernels.tokenclass import MASKS

Tokenizer: TypeAlias = Literal["words", "chars", "bytes", "list"]
Int16s: TypeAlias = npt.NDArray[np.int16]

TOKENIZERS: tuple[Tokenizer, ...] = ("words", "chars", "bytes", "list")
PADDING = 0
TEXT_BYTES = 64

_NOWHERE = (np.empty(0, np.int64), np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class Spans:
    """Where each token stands: token t is `data[starts[t]:starts[t] + sizes[t]]`; a negative size is a mask's kind.

    data: (bytes,) uint8; starts: (tokens,) int64; sizes: (tokens,) int32; folded: `words` made it, in lower case.
    """

    data: UInt8s
    starts: Int64s
    sizes: Int32s
    folded: bool


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokeniser and the size of the vocabulary its ids are hashed into. Raises UsageError for either out of range."""

    tokenizer: Tokenizer = "words"
    vocabulary: int = 2**15

    def __post_init__(self) -> None:
        if self.tokenizer not in TOKENIZERS:
            raise UsageError(f"tokenizer is {self.tokenizer!r}; choose one of {', '.join(TOKENIZERS)}")
        if not 2 <= self.vocabulary < 2**31:
            raise UsageError(f"vocabulary is {self.vocabulary}; choose a size from 2 to {2**31 - 1}")

    def encode(self, column: TextColumn | TokensColumn) -> tuple[Int32s, Int64s]:
        """Token ids (tokens,) and offsets (n + 1,) from 0: row i is `ids[offsets[i]:offsets[i + 1]]`.

        Lists of tokens are taken as they are whatever the tokeniser. Raises DataError if offsets pass the data, and
        UsageError for text with the tokeniser `list`.
        """
        ids, offsets, _, _ = self._encode(column, locate=False)
        return ids, offsets

    def locate(self, column: TextColumn | TokensColumn) -> tuple[Int32s, Int64s, Spans]:
        """As `encode`, and where each token stands, for `Vocabulary.update` to read the texts."""
        ids, offsets, starts, sizes = self._encode(column, locate=True)
        text = column.tokens if isinstance(column, TokensColumn) else column
        folded = self.tokenizer == "words" and isinstance(column, TextColumn)
        return ids, offsets, Spans(_readonly(text.data), starts, sizes, folded)

    def _encode(self, column: TextColumn | TokensColumn, locate: bool) -> tuple[Int32s, Int64s, Int64s, Int32s]:
        if isinstance(column, TokensColumn):
            return self._encode_lists(column, locate)
        if self.tokenizer == "list":
            raise UsageError("the tokenizer `list` needs a column of lists; for text choose words, chars or bytes")
        data, offsets = _checked(column)
        size = int(offsets[-1] - offsets[0])
        ids = np.empty(size, np.int32)  # no token is empty; pages that are never written cost nothing
        ends = np.empty(len(offsets), np.int64)
        starts, sizes = (np.empty(size, np.int64), np.empty(size, np.int32)) if locate else _NOWHERE
        if self.tokenizer == "words":
            n = tokenise.words(data, offsets, self.vocabulary, ids, ends, starts, sizes)
        else:
            table = _byte_ids(self.vocabulary)
            code_points = self.tokenizer == "chars"
            n = tokenise.chars(data, offsets, self.vocabulary, table, code_points, ids, ends, starts, sizes)
        return ids[:n], ends, starts[:n], sizes[:n]

    def _encode_lists(self, column: TokensColumn, locate: bool) -> tuple[Int32s, Int64s, Int64s, Int32s]:
        first, last = int(column.offsets[0]), int(column.offsets[-1])
        _check_offsets(column.offsets, len(column.tokens), "lists end at element")
        data, offsets = _checked(column.tokens)
        offsets = offsets[first : last + 1]
        ids = np.empty(last - first, np.int32)
        tokenise.whole(data, offsets, self.vocabulary, ids)
        starts, sizes = (offsets[:-1], np.diff(offsets).astype(np.int32)) if locate else _NOWHERE
        return ids, column.offsets - first, starts, sizes


def mask_texts(vocabulary: int) -> dict[int, str]:
    """The masks of `words` by their ids: where a rare word shares the id of one, the mask is what was meant."""
    named = [mask for mask in MASKS if mask]
    ends = np.cumsum([0, *map(len, named)])
    column = TextColumn(np.frombuffer("".join(named).encode(), np.uint8), ends)
    ids, _ = Encoder("list", vocabulary).encode(TokensColumn(column, np.array([0, len(named)])))
    return dict(zip(ids.tolist(), named, strict=True))


class Vocabulary:
    """What each id stood for: a mergeable statistic of token counts and, unless switched off, one text an id.

    counts: (size,) int64. texts: (size, 64) uint8, lengths: (size,) int16, -1 where no text is known. Of the tokens
    that share an id, the text is the smallest by (begins with a digit, length, bytes) after a cut at 64 bytes, so
    neither order nor sharding matters. (Numbers come last: they are many and each is rare.)
    With `texts=False` it holds no text of the data, and may be shared.
    """

    def __init__(self, size: int, texts: bool = True) -> None:
        self.counts: Int64s = np.zeros(size, np.int64)
        self.texts: UInt8s = np.zeros((size if texts else 0, TEXT_BYTES), np.uint8)
        self.lengths: Int16s = np.full(len(self.texts), -1, np.int16)

    def __len__(self) -> int:
        return len(self.counts)

    def empty(self) -> Vocabulary:
        """The neutral element of `merge`: nothing counted, same size and settings."""
        return Vocabulary(len(self), len(self.texts) > 0)

    def update(self, ids: Int32s, spans: Spans | None = None) -> None:
        """Count ids (tokens,) int32; with the spans that `Encoder.locate` gave, also learn their texts.

        Raises UsageError for an id of a larger vocabulary.
        """
        counts = np.bincount(ids, minlength=len(self))
        if len(counts) > len(self):
            raise UsageError(f"id {len(counts) - 1} is not of a vocabulary of {len(self)}; encode with the same size")
        self.counts += counts
        if spans is not None and len(self.texts):
            arguments = (spans.data, spans.starts, spans.sizes, spans.folded, self.texts, self.lengths)
            tokentext.learn_texts(ids, *arguments)

    def merge(self, other: Vocabulary) -> None:
        """Add what another vocabulary counted. Raises UsageError if its size differs."""
        if len(other) != len(self):
            raise UsageError(f"vocabularies of {len(self)} and {len(other)} ids cannot be merged; encode with one size")
        self.counts += other.counts
        if len(other.texts) and not len(self.texts):
            self.texts, self.lengths = other.texts.copy(), other.lengths.copy()
        elif len(other.texts):
            length, theirs = self._rank(), other._rank()
            key, their_key = self.texts.view(f"S{TEXT_BYTES}")[:, 0], other.texts.view(f"S{TEXT_BYTES}")[:, 0]
            smaller = (theirs < length) | ((theirs == length) & (their_key < key))
            self.texts[smaller] = other.texts[smaller]
            self.lengths[smaller] = other.lengths[smaller]

    def _rank(self) -> Int64s:
        """Order of each text before its bytes decide: (begins with a digit, length), no text as the greatest."""
        number = (self.texts[:, 0] >= ord("0")) & (self.texts[:, 0] <= ord("9"))
        rank = number * np.int64(2 * TEXT_BYTES) + self.lengths
        rank[self.lengths < 0] = np.iinfo(np.int64).max
        return rank

    def decode(self, token: int) -> str:
        """The text of an id; `<pad>` for padding and `#id` where no text is known."""
        if token == PADDING:
            return "<pad>"
        if not len(self.texts) or self.lengths[token] < 0:
            return f"#{token}"
        return bytes(self.texts[token, : self.lengths[token]]).decode("utf-8", "replace")

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state, for a model file or a checkpoint: counts, texts, lengths."""
        return {"counts": self.counts, "texts": self.texts, "lengths": self.lengths}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Vocabulary:
        """The vocabulary whose `arrays` these are. Raises ModelError if they cannot be."""
        counts, texts, lengths = (arrays.get(name) for name in ("counts", "texts", "lengths"))
        if counts is None or texts is None or lengths is None or counts.ndim != 1:
            raise ModelError("the vocabulary needs the arrays counts, texts and lengths; export the model again")
        self = cls(len(counts), len(texts) > 0)
        for name, own in self.arrays().items():
            if arrays[name].shape != own.shape or arrays[name].dtype != own.dtype:
                raise ModelError(f"the vocabulary's {name} should be {own.dtype} {own.shape}; export the model again")
            own[...] = arrays[name]
        if len(lengths) and not -1 <= lengths.min() <= lengths.max() <= TEXT_BYTES:
            raise ModelError(f"the vocabulary's lengths pass {TEXT_BYTES} bytes; export the model again")
        return self


def _checked(column: TextColumn) -> tuple[UInt8s, Int64s]:
    """The column's arrays, once every string is known to lie inside the data: the kernels trust them."""
    _check_offsets(column.offsets, len(column.data), "strings end at byte")
    return _readonly(column.data), _readonly(column.offsets)


def _check_offsets(offsets: Int64s, size: int, what: str) -> None:
    if not 0 <= offsets[0] <= offsets[-1] <= size:
        raise DataError(f"{what} {offsets[-1]} of {size}; the column's offsets are damaged")
    if len(offsets) > 2 and (offsets[1:] < offsets[:-1]).any():
        raise DataError("a column's offsets fall; they are damaged")


def _readonly(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view, so that Arrow's buffers and numpy's own share one compiled kernel."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


@lru_cache(maxsize=8)
def _byte_ids(vocabulary: int) -> Int32s:
    """The ids of the 256 one-byte tokens. (256,) int32."""
    ids = np.empty(256, np.int32)
    tokenise.whole(_readonly(np.arange(256, dtype=np.uint8)), _readonly(np.arange(257)), vocabulary, ids)
    return ids
