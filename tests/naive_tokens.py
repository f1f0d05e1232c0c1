"""The slow, obvious tokenisers: regular expressions and Python's integers."""

import re


def token_id(token: bytes, vocabulary: int) -> int:
    """FNV-1a of 64 bits, MurmurHash3's finaliser, and the remainder, in Python's integers."""
    mask = 2**64 - 1
    h = 0xCBF29CE484222325
    for byte in token:
        h = ((h ^ byte) * 0x100000001B3) & mask
    h = ((h ^ h >> 33) * 0xFF51AFD7ED558CCD) & mask
    h = ((h ^ h >> 33) * 0xC4CEB9FE1A85EC53) & mask
    return 1 + (h ^ h >> 33) % (vocabulary - 1)


_W = rb"[0-9A-Za-z\x80-\xff]"
_X = rb"[0-9A-Fa-f]"
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)(?!" + _W + rb")"
_ZONE = rb"(?>Z| ?[+-](?:\d{4}|\d\d:\d\d)(?!" + _W + rb"))?+(?!" + _W + rb")"
_FRACTION = rb"(?:[.,:]\d{1,9}(?!\d)|(?![.,:]\d))"
_CLOCK = rb"\d{1,2}:\d\d:\d\d(?!\d)" + _FRACTION + _ZONE
_DATED = (
    rb"(?:\d{1,2}:\d\d(?!\d)(?:(?=:\d\d(?!\d)):\d\d"
    + _FRACTION
    + rb"|(?!:\d\d(?!\d)))|\d{1,2}\.\d\d\.\d\d(?!\d)"
    + _FRACTION
    + rb")"
    + _ZONE
)
_DATE = (
    rb"(?:\d{1,2}(?:/%s/|-%s-| %s )\d{4}|\d{4}([-/.])\d{1,2}\1\d{1,2}"
    rb"|\d{1,2}(?:([-/.])\d{1,2}\2\d{4}|([-/])\d{1,2}\3\d\d))" % (_MONTH, _MONTH, _MONTH) + rb"(?!\d)"
)
_TIME = re.compile(
    rb"(?>%s|%s[ T_:-]%s|%s(?!%s)(?![-/.]\d)|\d{8}-%s|\d\d[-./]\d\d %s)"
    % (
        _CLOCK,
        _DATE,
        _DATED,
        _DATE.replace(rb"\3", rb"\6").replace(rb"\2", rb"\5").replace(rb"\1", rb"\4"),
        _W,
        _CLOCK,
        _CLOCK,
    )
)
_DAY = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?!%s),? " % _W)
_NAMED = re.compile(rb"%s  ?+\d{1,2} (?:\d{4} %s|(?!\d{4} )%s(?: \d{4}(?!%s))?+)" % (_MONTH, _CLOCK, _CLOCK, _W))
_UUID = re.compile(rb"%s{8}-(?:%s{4}-){3}%s{12}(?!%s)" % (_X, _X, _X, _W))
_IPV4 = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}(?!%s)(?!\.\d)" % _W)
_DECIMAL = re.compile(rb"\d++\.\d++(?!%s)(?!\.\d)" % _W)
_DOMAIN = re.compile(rb"%s(?:%s|-)*+(?:\.%s(?:%s|-)*+)++" % (_W, _W, _W, _W))


def _time(row: bytes, at: int) -> int | None:
    """The end of a time that begins there."""
    day = _DAY.match(row, at)
    if day:
        at = day.end()
        if row[at : at + 1].isdigit():
            found = _TIME.match(row, at)
            return found and found.end()
        found = _NAMED.match(row, at)
        return found and found.end()
    found = _TIME.match(row, at) or _NAMED.match(row, at)
    return found and found.end()


def _colon_hex(row: bytes, at: int) -> tuple[bytes, int] | None:
    """The mask and the end of an IPv6 or MAC address whose first group begins there."""
    gap = row[:at].endswith(b"::")
    if gap and re.match(rb"%s|:" % _W, row[at - 3 : at - 2] if at > 2 else b""):
        return None
    groups: list[bytes] = []
    while True:
        group = re.compile(_X + rb"+").match(row, at)
        if group is None or len(group[0]) > 4:
            return None
        groups.append(group[0])
        at = group.end()
        if re.compile(rb":" + _X).match(row, at):
            if len(groups) == 8:
                break
            at += 1
        elif row[at : at + 2] == b"::" and not gap:
            gap = True
            at += 2
            if len(groups) == 8 or not re.compile(_X).match(row, at):
                break
        else:
            break
    if re.compile(_W).match(row, at) or not re.search(rb"\d", b"".join(groups)):
        return None
    if (len(groups) < 8) if gap else (len(groups) == 8):
        return b"<ip>", at
    return (b"<mac>", at) if [len(g) for g in groups] == [2] * 6 else None


def _shape(time: bytes) -> bytes:
    return b"<" + re.sub(rb" +", b" ", re.sub(rb"\d+", b"#", re.sub(rb"[A-Za-z]+", b"a", time))) + b">"


def _number(row: bytes, run: re.Match[bytes], path: bool) -> tuple[bytes, int]:
    if not re.search(rb"\d\.$", row[: run.start()]):
        found = _IPV4.match(row, run.start())
        if found:
            return b"<ip>", found.end()
        found = _DECIMAL.match(row, run.start())
        if found:
            return b"<num>", found.end()
    return (b"<num>" if path or len(run[0]) > 3 else run[0]), run.end()


def _mixed(text: bytes, path: bool) -> list[bytes]:
    """The tokens of a run with a digit that stands on its own."""
    if re.fullmatch(rb"0[xX]%s+|%s{7,}" % (_X, _X), text):
        return [b"<hex>"]
    groups = re.findall(rb"\d+|\D+", text.lower())
    if sum(group.isdigit() for group in groups) >= 3:
        return [b"<id>"]
    return [b"<path>"] if path else [b"<num>" if re.fullmatch(rb"\d{4,}", group) else group for group in groups]


def _word(row: bytes, run: re.Match[bytes], path: bool) -> tuple[list[bytes], int, bool]:
    """The tokens that a run of letters and digits begins, where they end, and whether they can stand for more runs."""
    at, text = run.start(), run[0]
    found = _UUID.match(row, at)
    if found:
        return [b"<uuid>"], found.end(), True
    if row[run.end() : run.end() + 1] == b":" or (row[:at].endswith(b"::") and re.search(rb"\d", text)):
        masked = re.fullmatch(_X + rb"{1,4}", text) and _colon_hex(row, at)
        if masked:
            return [masked[0]], masked[1], True
    end = _time(row, at)
    if end:
        return [_shape(row[at:end])], end, True
    if not re.search(rb"\d", text):
        return [text.lower()], run.end(), False
    if text.isdigit():
        token, end = _number(row, run, path)
        return [token], end, token == b"<ip>"
    return _mixed(text, path), run.end(), False


def words(row: bytes) -> list[bytes]:
    """The tokens of a log line, by regular expressions and the rules of seqbag.tokens."""
    tokens: list[bytes] = []
    at = chunk = 0
    path = False
    while at < len(row):
        run = re.compile(_W + rb"+").match(row, at)
        if run:
            found, at, stretch = _word(row, run, path)
            tokens += found
            if stretch:
                path, chunk = False, len(tokens)
            continue
        separator = row[at : at + 1]
        at += 1
        if separator in b"._-+%~$":
            continue
        path = separator in b"/\\"
        domain = _DOMAIN.match(row, at) if separator == b"@" and len(tokens) > chunk else None
        if domain and re.search(rb"\.[A-Za-z\x80-\xff]{2,}$", domain[0]):
            tokens[chunk:] = [b"<email>"]
            at = domain.end()
        chunk = len(tokens)
    return tokens


def chars(row: bytes) -> list[bytes]:
    """The code points of a string, each byte that belongs to none on its own."""
    return [c.encode("utf-8", "surrogateescape") for c in row.decode("utf-8", "surrogateescape")]
