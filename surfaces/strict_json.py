"""JSON as RFC 8259 has it, checked before anything parses it: Python's own parser takes more than that, and some of it breaks whoever reads on.

Refused beside bad syntax: NaN and Infinity, numbers that overflow to infinity or have thousands of digits, lone surrogates, bytes that are no
UTF-8, and nesting so deep, or so much of it, that walking it costs more than the request is worth.
"""

from __future__ import annotations

import re
from itertools import accumulate

from pydantic_core import from_json

MAX_CONTAINERS = 20_000
STRINGS = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
"""Possessive, and an unclosed string runs to the end: linear in the body's length whatever it holds."""
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
STEPS = bytes.maketrans(b"[]{}", b"\2\0\2\0")
VAST_EXPONENT = re.compile(rb"[eE]\+?0*[1-9][0-9]{2}")


class NotStrict(ValueError):
    """Why a body is refused, in words that do not repeat it."""


def check(body: bytes, max_depth: int) -> None:
    """Raises NotStrict unless `body` is strict JSON of at most `max_depth` arrays and objects inside one another."""
    if body.count(b"[") + body.count(b"{") > max_depth or VAST_EXPONENT.search(body):
        _check_shape(STRINGS.sub(b"", body), max_depth)
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise NotStrict(f"the body is no JSON as RFC 8259 describes it: {error}") from None


def _check_shape(outside_strings: bytes, max_depth: int) -> None:
    brackets = outside_strings.translate(STEPS, NOT_BRACKETS)
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise NotStrict(f"the body has more than {MAX_CONTAINERS} arrays and objects; send it in parts")
    if max(accumulate(step - 1 for step in brackets), default=0) > max_depth:
        raise NotStrict(f"the body has more than {max_depth} arrays and objects inside one another; no request needs that")
    if VAST_EXPONENT.search(outside_strings):
        raise NotStrict("the body has a number with an exponent of more than two digits; no request needs that")
