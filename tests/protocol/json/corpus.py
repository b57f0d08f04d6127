"""JSON documents and what a strict decoder must say of them, with the reason.

Written from the grammar of RFC 8259 rule by rule; sections are of that RFC. `ACCEPT` must be
decoded to the value given, `REJECT` must be refused, and `LIMITS` is grammatical JSON that
this service refuses where the RFC lets it: sections 4 (names), 8.1 and 8.2 (encoding,
unpaired surrogates) and 9 (range, depth, size).
"""

# ruff: noqa: E501, RUF001 - tables of documents; look-alike digits are the point

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """One document.

    Attributes:
        name: class and subject.
        raw: the bytes as sent.
        why: the rule that decides.
        value: what it decodes to, for `ACCEPT`.
    """

    name: str
    raw: bytes
    why: str
    value: Any = None


DEPTH_MAX = 128


def _accept(kind: str, why: str, *documents: tuple[str, Any]) -> list[Case]:
    return [
        Case(f"{kind}-{index:02}", text.encode(), why, value)
        for index, (text, value) in enumerate(documents, 1)
    ]


def _reject(kind: str, why: str, *documents: str | bytes) -> list[Case]:
    return [
        Case(f"{kind}-{index:02}", raw.encode() if isinstance(raw, str) else raw, why)
        for index, raw in enumerate(documents, 1)
    ]


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


ACCEPT = [
    *_accept("text", "2: any value is a JSON text, not only objects and arrays",
        ("null", None), ("true", True), ("false", False), ("0", 0), ('""', ""), ("[]", []),
        ("{}", {}), ('"a"', "a"), ("-1.5e3", -1500.0)),
    *_accept("white", "2: space, tab, LF and CR may stand around each token",
        (" null ", None), ("\t[]\t", []), ("\n{}\n", {}), ("\r1\r", 1), (" \t\r\n1", 1),
        ("[ 1 , 2 ]", [1, 2]), ("[\n1\r\n,\t2\n]", [1, 2]), ('{ "a" : 1 }', {"a": 1}),
        ('{\n"a"\n:\n1\n,\n"b"\r:\r2\r}', {"a": 1, "b": 2}), ("[ ]", []), ("{ }", {}),
        ("1" + " " * 1000, 1)),
    *_accept("integer", "6: int = zero / ( digit1-9 *DIGIT ), with an optional minus",
        ("-0", 0), ("1", 1), ("-1", -1), ("10", 10), ("123456789", 123456789),
        ("9007199254740993", 9007199254740993), ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)), ("18446744073709551615", 2**64 - 1)),
    *_accept("integer-big", "6: beyond 64 bits the value may lose precision; its bytes are kept",
        ("18446744073709551616", float(2**64)), ("-9223372036854775809", -float(2**63)),
        ("1" + "0" * 300, 1e300), ("-1" + "0" * 300, -1e300)),
    *_accept("fraction", "6: frac = decimal-point 1*DIGIT",
        ("0.0", 0.0), ("-0.0", -0.0), ("0.5", 0.5), ("-0.5", -0.5), ("1.0", 1.0),
        ("3.141592653589793", 3.141592653589793), ("0.1000", 0.1), ("10.01", 10.01),
        ("0." + "1" * 4000, 0.1111111111111111), ("0." + "0" * 400 + "1", 0.0)),
    *_accept("exponent", "6: exp = e [ minus / plus ] 1*DIGIT",
        ("1e0", 1.0), ("1E0", 1.0), ("1e1", 10.0), ("1e+1", 10.0), ("1e-1", 0.1), ("1E+1", 10.0),
        ("1E-1", 0.1), ("0e0", 0.0), ("0E5", 0.0), ("-0e-0", -0.0), ("1.5e2", 150.0),
        ("1e01", 10.0), ("1e-01", 0.1), ("1e308", 1e308), ("-1e308", -1e308),
        ("1.7976931348623157e308", 1.7976931348623157e308), ("5e-324", 5e-324),
        ("2.2250738585072014e-308", 2.2250738585072014e-308), ("1e-400", 0.0),
        ("0e999999", 0.0)),
    *_accept("string", "7: unescaped = %x20-21 / %x23-5B / %x5D-10FFFF",
        ('" "', " "), ('"\x7f"', "\x7f"), ('"\x80"', "\x80"), ('"é"', "é"), ('"€"', "€"),
        ('"😀"', "😀"), ('"\u2028\u2029"', "\u2028\u2029"), ('"\ufeff"', "\ufeff"),
        ('"\ufffd"', "\ufffd"), ('"\uffff"', "\uffff"), ('"\U0010ffff"', "\U0010ffff"),
        ('"/"', "/"), ("\"'\"", "'"), ('"[{,:}]"', "[{,:}]"), ('"//"', "//"), ('"e\u0301"', "e\u0301"),
        ('"null"', "null"), ('"\ue000"', "\ue000"), ('"' + "a" * 10000 + '"', "a" * 10000)),
    *_accept("escape", '7: after a backslash " \\ / b f n r t or uXXXX',
        (r'"\""', '"'), (r'"\\"', "\\"), (r'"\/"', "/"), (r'"\b"', "\b"), (r'"\f"', "\f"),
        (r'"\n"', "\n"), (r'"\r"', "\r"), (r'"\t"', "\t"), (r'"\u0041"', "A"),
        (r'"\u0000"', "\x00"), (r'"\u001f"', "\x1f"), (r'"\u00e9"', "é"), (r'"\u00E9"', "é"),
        (r'"\uaBcD"', "\uabcd"), (r'"\ud83d\ude00"', "😀"), (r'"\uD83D\uDE00"', "😀"),
        (r'"\udbff\udfff"', "\U0010ffff"), (r'"\uffff"', "\uffff"), (r'"\ufeff"', "\ufeff"),
        (r'"\\u0041"', r"\u0041"), (r'"\\\""', '\\"'), (r'"a\u0062c"', "abc")),
    *_accept("array", "5: values separated by commas; they need not be of one type",
        ("[1]", [1]), ("[1,2]", [1, 2]), ("[[]]", [[]]), ("[{}]", [{}]), ('[1,"a",null,true,[],{}]',
        [1, "a", None, True, [], {}]), ("[[],[]]", [[], []]), ('["],["]', ["],["]),
        ('["\\"",1]', ['"', 1]), ("[-1,-0.5e-1]", [-1, -0.05])),
    *_accept("object", "4: members separated by commas, each a string, a colon and a value",
        ('{"a":1}', {"a": 1}), ('{"":1}', {"": 1}), ('{"a":{"a":{}}}', {"a": {"a": {}}}),
        ('{"a":1,"b":2}', {"a": 1, "b": 2}), ('{"a":[{"b":[]}]}', {"a": [{"b": []}]}),
        ('{"\\u0061":1}', {"a": 1}), ('{"a b":1}', {"a b": 1}), ('{"é":1}', {"é": 1}),
        ('{"\\u0000":1}', {"\x00": 1}), ('{"1":1}', {"1": 1}), ('{"null":null}', {"null": None}),
        ('{"}":"{"}', {"}": "{"}), ('{"__proto__":1}', {"__proto__": 1})),
    *_accept("repeated", "4: names SHOULD be unique; of repeated ones the last is reported",
        ('{"a":1,"a":2}', {"a": 2}), ('{"a":1,"\\u0061":2}', {"a": 2})),
    *_accept("depth", "9: nesting is limited, to 128 levels by default; this is within",
        ("[" * DEPTH_MAX + "]" * DEPTH_MAX, _nested(DEPTH_MAX)),
        ("[" * 64 + "]" * 64, _nested(64)),
        ("[" + ",".join(["[]"] * 500) + "]", [[]] * 500),
        ('["' + "[" * 500 + '"]', ["[" * 500])),
]  # fmt: skip

REJECT = [
    *_reject("empty", "2: a JSON text is a value", "", " ", "\n", "\t \r\n"),
    *_reject("trailing", "2: nothing but white space may follow the value",
        "1 2", "null null", "{}{}", "[][]", "[]]", "{}}", "1,", "[1],", '""""', "{} x", "1\x00",
        '"a" "b"', "true,false", "nullx", "[]#", "{}//", "1;", "[1]\x00"),
    *_reject("white", "2: no other character is white space",
        "\x0b1", "\x0c1", "[1\x0c]", "\xa01", "\u20281", "\u2003[]", "\u30001", "\x851", "[\x0b]",
        "\x00", "\x1f1", "\u200b1", "\x001"),
    *_reject("literal", "3: the literal names are true, false and null, in lower case",
        "True", "FALSE", "Null", "nul", "tru", "fals", "nulll", "truefalse", "undefined", "nil",
        "None", "[tru]", "[nul]", '{"a":fals}', "t", "yes"),
    *_reject("nan", "6: numbers that cannot be written in digits, such as Infinity, are not permitted",
        "NaN", "-NaN", "nan", "Infinity", "-Infinity", "+Infinity", "Inf", "inf", "[NaN]",
        '{"a":Infinity}', "1e", "1#INF"),
    *_reject("number-lead", "6: a number starts with an optional minus and a digit; no plus, no point",
        "+1", ".5", "-.5", "+.5", "-", "--1", "-+1", "- 1", "-a", "[-]", "[+1]", "[.5]", "-[]"),
    *_reject("number-zero", "6: leading zeros are not allowed",
        "01", "00", "-01", "-00", "000", "01.5", "00.5", "[01]", "[-012]", "-01e1", "0123",
        '{"a":01}'),
    *_reject("number-fraction", "6: the decimal point is followed by at least one digit",
        "1.", "0.", "-1.", "1.e1", "0.e1", "[1.]", "1.a", "1.-1", "1.1.1", "1..1", "1.+1"),
    *_reject("number-exponent", "6: the exponent has at least one digit, and only digits",
        "1e+", "1e-", "1E", "1ee1", "1e1.5", "1e1e1", "[1e]", "[1e+]", "1.5e", "0e", "1e--1",
        "1e+-1", "1e 1", "e1"),
    *_reject("number-other", "6: only decimal digits; no other radix, separators or alphabets",
        "0x1", "0xFF", "0b1", "0o7", "1_000", "1 000", "1,000", "1f", "1L", "1n", "0x", "१", "１", "½",
        "1\u0661", "1a", "[1a]", "$1", "1/2"),
    *_reject("string-open", "7: a string begins and ends with quotation marks",
        '"', '"a', 'a"', '["a]', '{"a', '"a\\"', '"\\', '["', "'a'", "`a`", "a", "[a]", "“a”",
        "'", '"a\'', "['a']"),
    *_reject("string-control", "7: control characters U+0000 to U+001F must be escaped",
        *[f'"{chr(code)}"' for code in range(0x20)], '"a\nb"', '"a\tb"', '{"a\n":1}', '["\r"]'),
    *_reject("escape", "7: no other character may follow a backslash",
        r'"\a"', r'"\v"', r'"\0"', r'"\x41"', r'"\'"', r'"\e"', r'"\ "', r'"\N"', r'"\B"', r'"\1"',
        '"\\\n"', '"\\é"', r'"\%"', '"\\\x00"', r'{"\a":1}'),
    *_reject("escape-hex", "7: u is followed by four hexadecimal digits",
        r'"\u"', r'"\u1"', r'"\u12"', r'"\u123"', r'"\u123g"', r'"\ug123"', r'"\U0041"', r'"\u 041"',
        r'"\u+041"', r'"\u-041"', r'"\u{41}"', r'"\u00"', r'"\u00é1"', r'"\u１234"', '"\\u', '"\\u00'),
    *_reject("encoding", "8.1: text between systems is UTF-8 (RFC 3629)",
        b'"\xff"', b'"\xfe"', b'"\x80"', b'"\xbf"', b'"\xc0\x80"', b'"\xc1\xbf"', b'"\xc3"',
        b'"\xc3\x28"', b'"\xe0\x80\x80"', b'"\xe2\x82"', b'"\xe2\x28\xa1"', b'"\xf0\x80\x80\x80"',
        b'"\xf0\x9f\x98"', b'"\xf4\x90\x80\x80"', b'"\xf5\x80\x80\x80"', b'"\xf8\x88\x80\x80\x80"',
        b'{"\xff":1}', b"\xff", b"[\xe9]", b'"\xe9"', b'"a\xc3\xa9\xff"', b'"\xed\xa0\x80"',
        b'"\xed\xbf\xbf"', b'"\xed\xa0\xbd\xed\xb8\x80"'),
    *_reject("encoding-other", "8.1: UTF-16 and UTF-32 are not UTF-8",
        "{}".encode("utf-16"), "{}".encode("utf-16-le"), "{}".encode("utf-16-be"),
        "{}".encode("utf-32"), "1".encode("utf-16-le"), '"é"'.encode("latin-1"),
        "{}".encode("utf-32-be")),
    *_reject("array", "5: values separated by single commas, between brackets",
        "[", "]", "[1", "1]", "[1,", "[,", "[,]", "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1;2]", "[1:2]",
        "[1}", "{1]", "(1)", "[[]", "[]]", "[1,]]", '["a" "b"]', '["a":1]', "[1,\n", "<1>", "[,,]"),
    *_reject("object", "4: string, colon, value, separated by single commas, between braces",
        "{", "}", '{"a"', '{"a"}', '{"a":', '{"a":}', '{"a":1', '{"a":1,', '{"a":1,}', '{,}', '{,"a":1}',
        '{"a":1,,"b":2}', '{"a" 1}', '{"a"=1}', '{"a"::1}', '{"a":1:2}', "{a:1}", "{1:1}", "{null:1}",
        "{'a':1}", '{"a":1 "b":2}', '{"a":1;"b":2}', "{[]:1}", "{{}:1}", '{"a":1]', '["a",1}', "{:1}",
        '{"a",1}', '{"a":1,"b"}', '{"a":1,2}', "{true:1}", '{"a":,}', '{"a"\x0b:1}', '{"a":{}'),
    *_reject("comment", "2: the grammar has no comments",
        "/**/1", "1/**/", "//\n1", "1//", "#\n1", "[1/**/]", '{"a":1/**/}', "[//\n1]", "--1\n1",
        "<!---->1"),
]  # fmt: skip

LIMITS = [
    *_reject("bom", "8.1: a byte order mark MUST NOT be added; a parser MAY ignore it",
        b"\xef\xbb\xbf{}", b"\xef\xbb\xbf1", b"\xef\xbb\xbf", b"\xef\xbb\xbf[]"),
    *_reject("surrogate", "8.2: unpaired surrogates are unpredictable; they are no Unicode text",
        r'"\ud800"', r'"\udfff"', r'"\udc00\ud800"', r'"\ud800a"', r'"\ud800\u0041"', r'"a\udbff"',
        r'"\ud83d\ud83d\ude00"', r'{"\ud800":1}', r'["\uDEAD"]'),
    *_reject("range", "9: an implementation may set limits on the range of numbers: a double's",
        "1e309", "-1e309", "1e400", "1.8e308", "1e999999999", "1" + "0" * 309, "-" + "9" * 400,
        "[1e400]", '{"a":-1e400}'),
    *_reject("depth", "9: an implementation may set limits on the depth of nesting: 128",
        "[" * 129 + "]" * 129, '{"a":' * 129 + "1" + "}" * 129, '[{"a":' * 65 + "1" + "}]" * 65,
        "[" * 1000 + "]" * 1000, "[" * 1025 + "]" * 1025, "[" * 100000, '{"a":' * 100000,
        '["]]]]",' * 129 + "1" + "]" * 129, "[[]," * 129 + "1" + "]" * 129),
]  # fmt: skip
