"""Writes mojibake.txt: the tables and expressions by which ftfy (6.3) recognises and repairs wrongly decoded text.

    pip install ftfy==6.3.1
    python3 mojibake.py > mojibake.txt

Read from the installed package, in ASCII. One entry per line, its fields separated by tabs:

    encoding NAME CODES    the characters of the bytes 80 to ff, as hexadecimal code points; in ftfy's order
    ligature CODE TEXT     a character and the letters that replace it
    bad EXPRESSION         a sequence of characters that gives mojibake away; there are several
    continuation SET       characters after which no embedded mojibake starts
    embedded EXPRESSION    UTF-8 sequences that were decoded as something else
    altered, lossy         of bytes: UTF-8 sequences with a space for the byte a0, or with bytes lost

Expressions are written in the syntax of Rust's regex crate, from the tree of Python's parser. Python's \\s and \\w are spelled
out, because Rust's differ from them.
"""
from re import _constants as op
from re import _parser as parser

from ftfy import chardata
from ftfy.badness import BADNESS_RE

CATEGORIES = {op.CATEGORY_SPACE: r"\s\x1c-\x1f", op.CATEGORY_WORD: r"\p{L}\p{N}_"}


def character(code):
    if chr(code).isalnum() and code < 0x80:
        return chr(code)
    return f"\\x{{{code:x}}}" if code > 0xFF else f"\\x{code:02x}"


def ranges(codes):
    """Code points as the content of a character class, neighbours joined."""
    runs = []
    for code in sorted(codes):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(character(a) if a == b else f"{character(a)}-{character(b)}" for a, b in runs)


def one_of(items):
    codes, categories, negated = set(), "", ""
    for kind, value in items:
        if kind is op.NEGATE:
            negated = "^"
        elif kind is op.LITERAL:
            codes.add(value)
        elif kind is op.RANGE:
            codes.update(range(value[0], value[1] + 1))
        else:
            categories += CATEGORIES[value]
    return f"[{negated}{ranges(codes)}{categories}]"


def expression(tree):
    return "".join(node(*item) for item in tree)


def node(kind, value):
    if kind is op.LITERAL:
        return character(value)
    if kind is op.ANY:
        return "."
    if kind is op.IN:
        return one_of(value)
    if kind is op.BRANCH:
        return "(?:" + "|".join(expression(branch) for branch in value[1]) + ")"
    if kind is op.MAX_REPEAT:
        least, most, what = value
        repeat = {(0, 1): "?", (1, op.MAXREPEAT): "+"}.get((least, most)) or f"{{{least},{most}}}"
        return expression(what) + repeat
    if kind is op.SUBPATTERN:
        return f"(?:{expression(value[3])})"
    if kind is op.AT and value is op.AT_BEGINNING:
        return "^"
    raise ValueError(f"cannot write {kind} {value}")


def parsed(compiled):
    return parser.parse(compiled.pattern, compiled.flags)


def write(*fields):
    print(*fields, sep="\t")


for encoding in chardata.CHARMAP_ENCODINGS:
    characters = bytes(range(0x80, 0x100)).decode(encoding)
    assert len(set(characters)) == 128 and all(ord(c) >= 0x80 for c in characters)
    assert bytes(range(0x80)).decode(encoding).replace("\ufffd", "\x1a") == bytes(range(0x80)).decode()
    write("encoding", encoding, " ".join(f"{ord(c):x}" for c in characters))
for ligature, letters in chardata.LIGATURES.items():
    write("ligature", f"{ligature:x}", " ".join(f"{ord(c):x}" for c in letters))

(branch,) = parsed(BADNESS_RE)
assert branch[0] is op.BRANCH
for alternative in branch[1][1]:
    write("bad", expression(alternative))

behind, sequences = parsed(chardata.UTF8_DETECTOR_RE)
assert behind[0] is op.ASSERT_NOT and behind[1][0] == -1
write("continuation", expression(behind[1][1])[1:-1])
write("embedded", node(*sequences))
write("altered", expression(parsed(chardata.ALTERED_UTF8_RE)))
write("lossy", expression(parsed(chardata.LOSSY_UTF8_RE)))
