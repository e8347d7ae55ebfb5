"""Functions that become methods keep their name, signature and docstring, so that help() and editors show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def named_like(build: Callable[..., Any], method: F, returns: str, more: str = "") -> F:
    """The method, documented as the function that builds its call: its parameters after `self`, and its docstring with a line more.

    `returns`: what the method gives, with {} for the model that the answer is read into.
    """
    signature = inspect.signature(build)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    model = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    vars(method)["__signature__"] = signature.replace(parameters=[itself, *signature.parameters.values()], return_annotation=returns.format(model))
    method.__doc__ = " ".join(filter(None, (build.__doc__, more)))
    method.__name__ = build.__name__
    return method
