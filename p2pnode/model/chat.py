"""Writes a conversation as one text, with the chat template that came with a model.

A template is a program by a stranger: it runs in jinja2's immutable sandbox, without loaders,
with the few functions that transformers gives templates, and its output is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from p2pnode.errors import BadRequest, ModelFilesError
from p2pnode.log import escape

Message = Mapping[str, Any]
"""``{"role": "user", "content": "..."}``, and what `OPTIONAL` names."""

OPTIONAL = {"name": str, "tool_call_id": str, "tool_calls": list}
"""Of a tool's answer, and of an assistant that called tools; templates that know them use them."""

MAX_RENDERED_CHARS = 16 << 20


def checked_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Copies of messages with ``role`` and ``content``, and nothing unknown; raises BadRequest."""
    if isinstance(messages, str) or not messages:
        raise BadRequest("a chat needs at least one message with a role and a content")
    checked = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise BadRequest(f"message {number} is not a mapping of role and content")
        if not all(isinstance(message[name], str) for name in ("role", "content")):
            raise BadRequest(f"message {number}: role and content must be text")
        if not message["role"]:
            raise BadRequest(f"message {number} has an empty role")
        for name in set(message) - {"role", "content"}:
            if name not in OPTIONAL or not isinstance(message[name], OPTIONAL[name]):
                raise BadRequest(f"message {number}: {escape(str(name), 40)} is not known")
        checked.append(dict(message))
    return checked


class ChatTemplate:
    """A compiled template. Renders like ``apply_chat_template(add_generation_prompt=True)``."""

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        self.source = source
        """As it came with the model."""
        self._variables = dict(variables)

    @property
    def takes_tools(self) -> bool:
        """Whether it tells the model of tools; False, too, when it is broken."""
        try:
            parsed = _environment().parse(self.source)
            return "tools" in jinja2.meta.find_undeclared_variables(parsed)
        except (jinja2.TemplateError, RecursionError):
            return False

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The text that the model continues with its answer.

        tools: what the model may ask to be called, in OpenAI's shape
        Raises BadRequest when the template refuses the messages (an unknown role, two messages of
        one role in a row), ModelFilesError when the template itself is broken.
        """
        checked = checked_messages(messages)
        try:
            template = _environment().from_string(self.source)
        except jinja2.TemplateError as error:
            what = escape(str(error))
            raise ModelFilesError(f"the model's chat template is broken: {what}") from None
        try:
            parts = template.generate(
                messages=checked,
                tools=tools or None,
                documents=None,
                add_generation_prompt=True,
                **self._variables,
            )
            return _bounded(parts)
        except _Refused as error:
            raise BadRequest(f"the model's chat template says: {escape(str(error))}") from None
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            what = escape(f"{type(error).__name__}: {error}")
            raise ModelFilesError(f"the model's chat template fails: {what}") from None
        except (AttributeError, RecursionError, MemoryError, OverflowError) as error:
            what = type(error).__name__
            raise ModelFilesError(f"the model's chat template fails: {what}") from None


class _Refused(jinja2.TemplateError):
    """The template called ``raise_exception``."""


def _bounded(parts: Any) -> str:
    rendered, size = [], 0
    for part in parts:
        size += len(part)
        if size > MAX_RENDERED_CHARS:
            raise ModelFilesError("the model's chat template writes without end")
        rendered.append(part)
    return "".join(rendered)


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what the assistant said, for training; here it only passes on."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The statements inside, as they are."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Dict:
    """The constructor, and not the class, through which a template could reach its methods."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's own lets names through that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        names = dict(*rest, **kwargs)
        for name in names:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"namespaces have no name {name!r}")


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """The environment that `transformers` gives templates."""

    def refuse(message: object) -> NoReturn:
        raise _Refused(str(message))

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    names: dict[str, Callable[..., Any]] = {
        "raise_exception": refuse,
        "strftime_now": lambda layout: datetime.now().astimezone().strftime(layout),
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    environment.globals.update(names)
    environment.filters["tojson"] = to_json
    return environment
