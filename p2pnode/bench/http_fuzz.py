"""Asks a gateway for whatever its own description allows and forbids (schemathesis)."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Any

FEW_TOKENS = 3


def can_fuzz() -> bool:
    """Whether schemathesis is here; it comes with the ``dev`` extra."""
    return find_spec("schemathesis") is not None


def fuzz(url: str, model: str, *, is_valid: bool, examples: int) -> list[int]:
    """The statuses of all answers, so many per endpoint. Blocks.

    Bodies name the model and ask for few tokens, or nothing would be looked at.
    """
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.generation import GenerationMode

    mode = GenerationMode.POSITIVE if is_valid else GenerationMode.NEGATIVE
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: list[int] = []

    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = model
            for name in ("max_tokens", "max_completion_tokens"):
                if type(case.body.get(name)) is int:
                    case.body[name] = min(case.body[name], FEW_TOKENS)
        statuses.append(case.call().status_code)

    bounded = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    results: Any = schema.get_all_operations()
    for result in results:
        cases = result.ok().as_strategy(generation_mode=mode)
        with suppress(Unsatisfiable):  # it takes nothing, so nothing can be wrong
            bounded(given(case=cases)(ask))()
    return statuses
