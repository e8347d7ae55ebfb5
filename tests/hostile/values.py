"""Values that have broken somebody's software before, as strings, numbers and JSON texts. Every one may carry the run's secret."""

from __future__ import annotations

import json
from random import Random

SECRET = "hunter2-correct-horse"
"""Stands for what a client would not like to find in a log."""

ZALGO = "z̷̢̛͎̘͍a̸̧͔̎l̶̢͇̿g̵̨̲̐o̸͇͊"
STRINGS = [
    "", " ", "\t\n\r", "\x00", "a\x00b", "\x1b[2J\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x7f", "\x85", "\u2028\u2029", "\ufeff", "\u200b",
    "\u00ad" * 50, "\u202egnp.exe", "\u2066\u2067\u2069", "مرحبا بالعالم", "שלום", "कर्नाटक", "สวัสดี", "👩‍👩‍👧‍👦" * 20, "🏳️‍🌈", "\U0010ffff",
    "\ufffe", "\ue000", ZALGO * 30, "ﷺ" * 400, "ﬁ" * 300, "ℌ𝖊𝖑𝖑𝖔", "İıſK", "\u0390" * 200, "e" + "\u0301" * 400, "각" * 200, "①②③", "ＳＥＬＥＣＴ",
    "\u1e9b\u0323", "\u0344" * 300, "' OR 1=1 --", "'; DROP TABLE pins; --", '" OR ""="', "1; SELECT pg_sleep(10)", "{{7*7}}", "${7*7}", "<%= 7*7 %>",
    "#{7*7}", "{0.__class__}", "%s%s%s%n", "{% for x in range(10**9) %}{% endfor %}", "$(reboot)", "`id`", "| cat /etc/passwd", "&& sleep 10",
    "\r\nSet-Cookie: a=b", "\r\n\r\nHTTP/1.1 200 OK", "%0d%0aX-Injected: 1", "2026-01-01 ERROR everpin.surfaces all is lost",
    "\nlevel=error msg=forged", "../../../../etc/passwd", "..\\..\\windows", "/etc/passwd", "file:///etc/passwd",
    "http://169.254.169.254/latest/meta-data", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "javascript:alert(1)", "]]><!--",
    "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>", "=cmd|' /C calc'!A0", "@SUM(1+1)", "null", "undefined", "NaN",
    "true", "[]", "{}", "-1", "0x10", "1e309", "Infinity", "__proto__", "constructor", "toString", "a" * 499, "a" * 500, "a" * 501, "a " * 4000, "*",
    "(?:a+)+$", "a" * 8001, "OR AND NOT", '"unclosed', "\\", "\\u0000", "\\x00", "%", "%%", "%00", "%2e%2e%2f", "%c0%ae", "%ed%a0%80", "+", "~",
    "CON", "COM1", ".", "..",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-1", "1", "2", "100", "101", "1.5", "1.0", "1e0", "1e2", "1e-400", "1e309", "-1e309", "1E400", "NaN", "Infinity", "-Infinity",
    "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" + "0" * 300, "9" * 4000,
    "9" * 5000, "0.1e1", "01", "+1", ".5", "1.", "0x1", "1_000", "١", "--1", "1e", "253402300800", "-62135596801", "1e18",
]  # fmt: skip
OTHERS = [
    "null", "true", "false", "[]", "{}", "[[]]", '[{"a":[{}]}]', '{"a":null}', '[null]', '["a","b"]', '""', '{"":""}', '{"__proto__":{"x":1}}',
]  # fmt: skip
BROKEN = [
    "", "nul", "tru", "{", "[", '"', "'a'", "[1,]", '{"a":1,}', "{a:1}", '"\\ud800"', '"\\udfff\\ud800"', '"\\uD83D"', '"\\u12"', '"\\q"', '"\t"',
    "/*a*/1", "1 2",
]  # fmt: skip
TIMES = [
    "now", "2026-13-45", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59.999999Z", "10000-01-01", "-0001-01-01T00:00:00Z", "2026-01-01T25:61:61Z",
    "1e18", "-1e18", "2026-01-01T00:00:00+99:99", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "P1D", "٢٠٢٦-٠١-٠١",
]  # fmt: skip


def string(chance: Random) -> str:
    """A nasty string, sometimes two together, sometimes around the secret."""
    text = chance.choice(STRINGS)
    if chance.random() < 0.3:
        text = chance.choice([text + chance.choice(STRINGS), f"{SECRET}{text}", f"{text}{SECRET}"])
    if chance.random() < 0.1:
        ranges = ((0, 0xD800), (0xE000, 0x110000), (0, 128))
        text = "".join(chr(chance.randrange(*chance.choice(ranges))) for _ in range(chance.randrange(1, 60)))
    return text


def nested(chance: Random) -> str:
    """Arrays and objects inside one another: a few, hundreds, or thousands."""
    depth = chance.choice([5, 15, 16, 17, 90, 300, 990, 1100, 5000, 20_000])
    opening, closing = chance.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
    middle = chance.choice(["1", "null", '"x"', ""]) if opening == "[" else "1"
    return opening * depth + middle + closing * (depth if chance.random() < 0.7 else chance.randrange(depth))


def json_text(chance: Random) -> str:
    """The text of one JSON value, or of what nearly is one."""
    kind = chance.random()
    if kind < 0.4:
        return json.dumps(string(chance), ensure_ascii=chance.random() < 0.5)
    if kind < 0.65:
        return chance.choice(NUMBERS)
    if kind < 0.8:
        return chance.choice(OTHERS)
    if kind < 0.88:
        return nested(chance)
    if kind < 0.94:
        return json.dumps(chance.choice(TIMES))
    return chance.choice(BROKEN)


def flipped(chance: Random, body: bytes) -> bytes:
    """The same bytes with some changed, cut out or doubled."""
    made = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        kind = chance.random()
        if kind < 0.5 and at < len(made):
            made[at] = chance.randrange(256)
        elif kind < 0.7:
            made[at:at] = bytes([chance.randrange(256)]) * chance.choice([1, 1, 2, 50])
        elif kind < 0.85:
            del made[at : at + chance.randint(1, 10)]
        else:
            made[at:at] = made[: chance.randint(0, 30)]
    return bytes(made)
