import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.batch import TextColumn, TokensColumn
from seqbag.errors import DataError, ModelError, UsageError
from seqbag.tokens import Encoder, Vocabulary, mask_texts
from tests import naive_tokens
from tests.memory import tokens_column

# Pieces that the masks are made of, so that random lines come near every rule and its borders.
PIECES = """a|bad|face|User|Jul|Sun|May|T|Z|x|0x|é|e3b0c442|0|7|12|15|007|404|2015|20171223|1445144423722|deadbeef|1f|
b2c3d4e5f|:|:|::|.|.|-|-|/|/|\\|@|,| | |  |_|=|[|+|$|18:01:47|2015-10-18|17/06/09|10.250.19.102|fe80::1|
mail.example.com|c53a921a-16c7-422e-8c9d-c922a720d047|00:1b:44:11:3a:b7|+0200|0:0:0:0:0:0:0:1""".replace(
    "\n", ""
).split("|")
lines = st.lists(st.sampled_from(PIECES), max_size=14).map(lambda pieces: "".join(pieces).encode())
anything = st.one_of(lines, st.binary(max_size=60), st.text(max_size=40).map(str.encode))


def column(rows: list[bytes], before: bytes = b"") -> TextColumn:
    offsets = np.cumsum([len(before), *map(len, rows)])
    return TextColumn(np.frombuffer(before + b"".join(rows), np.uint8), offsets)


def texts(row: str | bytes) -> list[str]:
    """What the tokens of a line are, as the vocabulary tells it."""
    encoder = Encoder("words", 2**20)
    ids, _, spans = encoder.locate(column([row.encode() if isinstance(row, str) else row]))
    vocabulary = Vocabulary(2**20)
    vocabulary.update(ids, spans)
    return [vocabulary.decode(int(token)) for token in ids]


@settings(max_examples=1500)
@given(st.lists(anything, max_size=4), st.sampled_from([2, 7, 2**15]), st.binary(max_size=3))
def test_words_follow_the_rules(rows: list[bytes], vocabulary: int, before: bytes) -> None:
    ids, offsets = Encoder("words", vocabulary).encode(column(rows, before))
    expected = [[naive_tokens.token_id(token, vocabulary) for token in naive_tokens.words(row)] for row in rows]
    assert ids.dtype == np.int32
    assert offsets.dtype == np.int64
    assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected


@settings(max_examples=400)
@given(st.lists(anything, max_size=4), st.sampled_from([2, 2**15]), st.sampled_from(["chars", "bytes"]))
def test_chars_and_bytes(rows: list[bytes], vocabulary: int, tokenizer: str) -> None:
    ids, offsets = Encoder(tokenizer, vocabulary).encode(column(rows))  # type: ignore[arg-type]
    split = naive_tokens.chars if tokenizer == "chars" else lambda row: [bytes([b]) for b in row]
    expected = [[naive_tokens.token_id(token, vocabulary) for token in split(row)] for row in rows]
    assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected


@given(st.lists(st.lists(st.binary(max_size=8), max_size=4), max_size=4), st.sampled_from(["words", "list"]))
def test_lists_are_taken_as_they_are(rows: list[list[bytes]], tokenizer: str) -> None:
    tokens = [b"before", *(token for row in rows for token in row)]
    lists = TokensColumn(column(tokens), np.cumsum([1, *map(len, rows)]))
    ids, offsets = Encoder(tokenizer).encode(lists)  # type: ignore[arg-type]
    assert ids.tolist() == [naive_tokens.token_id(token, 2**15) for token in tokens[1:]]
    assert offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    _, _, spans = Encoder(tokenizer).locate(lists)  # type: ignore[arg-type]
    vocabulary = Vocabulary(2**15)
    vocabulary.update(ids, spans)
    assert all(vocabulary.lengths[ids] >= 0)


@settings(max_examples=200)
@given(st.lists(anything, max_size=6), st.integers(0, 6))
def test_batches_do_not_matter(rows: list[bytes], cut: int) -> None:
    encoder = Encoder()
    ids, offsets = encoder.encode(column(rows))
    parts = [encoder.encode(column(part)) for part in (rows[:cut], rows[cut:])]
    assert ids.tolist() == [token for part, _ in parts for token in part]
    assert np.diff(offsets).tolist() == [n for _, ends in parts for n in np.diff(ends)]


GOLDEN_LINE = b"Failed password for root from 10.0.0.7 at 2015-10-18 18:01:47,978 cn733"
GOLDEN_WORDS = [27746, 23088, 27988, 13887, 26524, 6791, 28935, 24130, 3438, 18795]
GOLDEN_CHARS = [23641, 2280, 18973, 29084]
GOLDEN_BYTES = [457641, 883196]


def test_ids_are_for_ever() -> None:
    """Models in the field hold these ids: a change here is a new format version."""
    ids, _ = Encoder("words").encode(
        column([b"Failed password for root from 10.0.0.7 at 2015-10-18 18:01:47,978 cn733"])
    )
    assert ids.tolist() == GOLDEN_WORDS
    ids, _ = Encoder("chars").encode(column(["aé\x00".encode() + b"\xff"]))
    assert ids.tolist() == GOLDEN_CHARS
    assert Encoder("bytes", 2**20).encode(column([b"a\xff"]))[0].tolist() == GOLDEN_BYTES


RULES = [
    # What each rule masks, and what comes near it and stays.
    ("at 18:01:47 18:01:47,978 18:01:47.978Z 18:01:47+02:00", "at <#:#:#> <#:#:#,#> <#:#:#.#a> <#:#:#+#:#>"),
    (
        "2015-10-18 2015/10/18 2015.10.18 17/06/09 18.10.2015 18/Oct/2015",
        "<#-#-#> <#/#/#> <#.#.#> <#/#/#> <#.#.#> <#/a/#>",
    ),
    ("2015-10-18T18:01:47Z 2015-10-18 18:01 2015-10-18_18:01:47", "<#-#-#a#:#:#a> <#-#-# #:#> <#-#-#_#:#:#>"),
    ("Sun Jul 17 14:03:05 2005 Sun, 17 Jul 2005 14:03:05 +0000", "<a a # #:#:# #> <a, # a # #:#:# +#>"),
    ("18:01 ratio 1/2 may 10 clients Mar 3 left", "18 01 ratio 1 <num> may 10 clients mar 3 left"),
    ("10.1.2.3 10.1.2.3.4 1.2.3 v1.2", "<ip> 10 1 2 3 4 1 2 3 v 1 2"),
    ("fe80::1 [::1]:80 2001:db8::8a2e:370:7334 std::vector Foo::bar", "<ip> <ip> 80 <ip> std vector foo bar"),
    ("mac 00:1b:44:11:3a:b7", "mac <mac>"),
    ("id=c53a921a-16c7-422e-8c9d-c922a720d047, c53a921a-16c7", "id <uuid> <hex> 16 c 7"),
    ("from jane.doe+x@mail.example.com, root@host SendWorker@688", "from <email> root host sendworker 688"),
    ("0 404 5000 2.77 KB -1 333.0", "0 404 <num> <num> kb 1 <num>"),
    ("0x7fff 0X1 0xzz 0244c20c e83c5163 beef2 facade", "<hex> <hex> 0 xzz <hex> <hex> beef 2 facade"),
    ("k3j9x2 cn733 ssh2 500ms", "<id> cn 733 ssh 2 500 ms"),
    ("/var/log/app7/12/x.log opened /a/b=7", "var log <path> <num> x log opened a b 7"),
    ("C:\\Windows\\winsxs2\\amd64 ok2", "c windows <path> <path> ok 2"),
    ("blk_-1678953999018234643 user=root PacketResponder", "blk <num> user root packetresponder"),
    ("10.250.19.102:50010", "<ip> <num>"),
    ("Größe überschritten 日本", "größe überschritten 日本"),
    ("a\0b \t\r\n !!! ()", "a b"),
    # Lines in the manner of many systems.
    (
        "03-17 16:13:45.382  1702  8671 D PowerManager: acquire lock=0x1a2b3c, uid=1000",
        "<#-# #:#:#.#> <num> <num> d powermanager acquire lock <hex> uid <num>",
    ),
    ("[Sun Dec 04 04:47:44 2005] [error] worker in error state 6", "<a a # #:#:# #> error worker in error state 6"),
    (
        "- 1117838570 2005.06.03 R02-M1-N0-C:J12-V11 2005-06-03-15.42.50.363779 RAS KERNEL INFO parity error",
        "<num> <#.#.#> r 02 m 1 n 0 c j 12 v 11 <#-#-#-#.#.#.#> ras kernel info parity error",
    ),
    (
        "081109 203615 148 INFO dfs.DataNode: block blk_38865049064139660 src: /10.250.19.102:54106",
        "<num> <num> 148 info dfs datanode block blk <num> src <ip> <num>",
    ),
    (
        "2015-10-18 18:01:47,978 INFO [main] mapreduce.v2.AppMaster: appattempt_1445144423722_0020_000001",
        "<#-#-# #:#:#,#> info main mapreduce v 2 appmaster appattempt <num> <num> <num>",
    ),
    (
        "20171223-22:15:29:606|Step_LSC|30002312|onStandStepChanged 3579",
        "<#-#:#:#:#> step lsc <num> onstandstepchanged <num>",
    ),
    ("134681 node-246 unix.hw state_change 1077804742 1 up", "<num> node 246 unix hw state change <num> 1 up"),
    (
        "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: failure; uid=0 tty=NODEVssh rhost=218.188.2.4",
        "<a # #:#:#> combo sshd pam unix <num> failure uid 0 tty nodevssh rhost <ip>",
    ),
    (
        "Jul  1 09:00:55 host-10-105 kernel[0]: AppleThunderbolt::wake - 0x0000000000000800",
        "<a # #:#:#> host 10 105 kernel 0 applethunderbolt wake <hex>",
    ),
    (
        "Dec 10 06:55:46 LabX sshd[24200]: Failed password for root from 173.234.31.186 port 38926 ssh2",
        "<a # #:#:#> labx sshd <num> failed password for root from <ip> port <num> ssh 2",
    ),
    (
        'nova.api [req-38101a0b-2096-447d-96ea-a692162415ae - -] 10.11.10.1 "GET /v2/servers HTTP/1.1" status: 200',
        "nova api req <uuid> <ip> get <path> servers http <num> status 200",
    ),
    (
        "[10.30 16:49:06] chrome.exe - proxy.example.hk:5070 close, 451 bytes sent, lifetime 00:01",
        "<#.# #:#:#> chrome exe proxy example hk <num> close 451 bytes sent lifetime 00 01",
    ),
    (
        "17/06/09 20:10:40 INFO storage.BlockManager: Found block rdd_42_20 (estimated size 5.7 KB)",
        "<#/#/# #:#:#> info storage blockmanager found block rdd 42 20 estimated size <num> kb",
    ),
    (
        "- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond(pam_unix)[2915]: session closed",
        "<num> <#.#.#> dn 228 <a # #:#:#> dn 228 <path> crond pam unix <num> session closed",
    ),
    (
        "2016-09-28 04:30:30, Info  CBS  Loaded C:\\Windows\\winsxs\\amd64_31bf3856ad364e35 [HRESULT = 0x800f080d]",
        "<#-#-# #:#:#> info cbs loaded c windows winsxs <path> <hex> hresult <hex>",
    ),
    (
        "2015-07-29 17:41:44,747 - INFO  [QuorumPeer[myid=1]/0:0:0:0:0:0:0:0:2181:Leader@774] - sid 0x24ee30a54f50019",
        "<#-#-# #:#:#,#> info quorumpeer myid 1 <ip> <num> leader 774 sid <hex>",
    ),
]


@pytest.mark.parametrize(("line", "expected"), RULES)
def test_the_table_of_rules(line: str, expected: str) -> None:
    assert " ".join(texts(line)) == expected  # a time's shape may hold spaces
    assert [token.decode() for token in naive_tokens.words(line.encode())] == texts(line)


def test_nothing_gives_nothing() -> None:
    for tokenizer in ("words", "chars", "bytes"):
        ids, offsets = Encoder(tokenizer).encode(column([b"", b"", b"a", b""]))  # type: ignore[arg-type]
        assert len(ids) == 1
        assert offsets.tolist() == [0, 0, 0, 1, 1]
        assert Encoder(tokenizer).encode(column([]))[1].tolist() == [0]  # type: ignore[arg-type]


def test_a_line_of_megabytes() -> None:
    for piece in (b"1.", b"a@", b"a.a@b-", b"0:", b"::1", b"12:", b"Jul ", b"\xff", b"9", b"@a.b."):
        ids, offsets = Encoder().encode(column([piece * 500_000]))
        assert offsets[-1] == len(ids)


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^tokenizer is 'runes'; choose one of words, chars, bytes, list$"):
        Encoder("runes")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^vocabulary is 1; choose a size from 2 to 2147483647$"):
        Encoder(vocabulary=1)
    with pytest.raises(UsageError, match="needs a column of lists"):
        Encoder("list").encode(column([b"a"]))
    damaged = TextColumn(np.zeros(3, np.uint8), np.array([0, 4]))
    with pytest.raises(DataError, match=r"^strings end at byte 4 of 3; the column's offsets are damaged$"):
        Encoder().encode(damaged)
    falling = TextColumn(np.zeros(9, np.uint8), np.array([0, 9, 0, 9]))
    with pytest.raises(DataError, match=r"^a column's offsets fall; they are damaged$"):
        Encoder().encode(falling)
    with pytest.raises(UsageError, match=r"^id 9 is not of a vocabulary of 7; encode with the same size$"):
        Vocabulary(7).update(np.array([9], np.int32))
    with pytest.raises(DataError, match="lists end at element 2 of 1"):
        Encoder().encode(TokensColumn(column([b"a"]), np.array([0, 2])))


def counted(rows: list[bytes], tokenizer: str = "words", size: int = 7, with_texts: bool = True) -> Vocabulary:
    vocabulary = Vocabulary(size, with_texts)
    ids, _, spans = Encoder(tokenizer, size).locate(column(rows))  # type: ignore[arg-type]
    vocabulary.update(ids, spans)
    return vocabulary


def merged(*parts: Vocabulary) -> Vocabulary:
    total = parts[0].empty()
    for part in parts:
        total.merge(part)
    return total


def state(vocabulary: Vocabulary) -> list[bytes]:
    return [array.tobytes() for array in vocabulary.arrays().values()]


row_lists = st.lists(anything, max_size=3)


@settings(max_examples=200)
@given(row_lists, row_lists, row_lists, st.sampled_from(["words", "chars"]), st.booleans())
def test_vocabularies_merge_by_the_laws(
    a: list[bytes], b: list[bytes], c: list[bytes], tokenizer: str, with_texts: bool
) -> None:
    x, y, z = (counted(rows, tokenizer, with_texts=with_texts) for rows in (a, b, c))
    whole = state(counted(a + b + c, tokenizer, with_texts=with_texts))
    assert state(merged(x, y, z)) == whole
    assert state(merged(z, y, x)) == whole
    assert state(merged(x, merged(y, z))) == whole
    assert state(merged(x.empty(), x)) == state(x)


@settings(max_examples=200)
@given(st.lists(anything, min_size=1, max_size=4))
def test_the_text_of_an_id_is_its_smallest_token(rows: list[bytes]) -> None:
    vocabulary = counted(rows)
    tokens = [token for row in rows for token in naive_tokens.words(row)]
    for number in range(1, 7):
        own = [token[:64] for token in tokens if naive_tokens.token_id(token, 7) == number]
        smallest = min(own, key=lambda token: (token[:1].isdigit(), len(token), token), default=f"#{number}".encode())
        assert vocabulary.decode(number) == smallest.decode("utf-8", "replace")
        assert vocabulary.counts[number] == len(own)


def test_long_tokens_of_lists_are_cut_before_they_are_compared() -> None:
    for order in (["b" * 70, "a" * 70], ["a" * 70, "b" * 70], ["b" * 64, "a" * 70]):
        column = tokens_column([order])
        vocabulary = Vocabulary(2)
        ids, _, spans = Encoder("list", 2).locate(column)
        vocabulary.update(ids, spans)
        assert vocabulary.decode(1) == "a" * 64


def test_long_texts_are_cut_and_texts_can_be_left_out() -> None:
    assert texts(b"a" * 100) == ["a" * 64]
    assert texts("7" * 100) == ["<num>"]
    silent = counted([b"secret"], with_texts=False)
    assert silent.counts.sum() == 1
    assert silent.texts.size == 0
    assert silent.decode(int(np.argmax(silent.counts))).startswith("#")
    assert silent.decode(0) == "<pad>"


def test_vocabularies_travel() -> None:
    vocabulary = counted([b"Failed password for root"])
    assert state(Vocabulary.from_arrays(vocabulary.arrays())) == state(vocabulary)
    assert pickle.loads(pickle.dumps(Encoder("chars", 99))) == Encoder("chars", 99)
    with pytest.raises(UsageError, match="vocabularies of 7 and 8 ids cannot be merged"):
        vocabulary.merge(Vocabulary(8))
    for name, damage in (("texts", np.zeros((7, 3), np.uint8)), ("lengths", np.full(7, 65, np.int16))):
        with pytest.raises(ModelError, match=f"the vocabulary's {name}"):
            Vocabulary.from_arrays(vocabulary.arrays() | {name: damage})
    with pytest.raises(ModelError, match="needs the arrays"):
        Vocabulary.from_arrays({})


def test_the_masks_are_known_by_the_ids_the_tokeniser_gives_them() -> None:
    line = b"at 18:01:47 from 10.0.0.1 by mail@example.org 12345"
    ids, _ = Encoder("words", 512).encode(TextColumn(np.frombuffer(line, np.uint8), np.array([0, len(line)])))
    named = mask_texts(512)
    assert [named.get(i) for i in ids.tolist()] == [None, None, None, "<ip>", None, "<email>", "<num>"]
