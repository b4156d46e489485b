"""From a body in OpenAI's words to what the client is asked for."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from p2pnode.client.model import ClientModel
from p2pnode.gateway.errors import ApiError
from p2pnode.gateway.models import check_model
from p2pnode.gateway.requests import (
    MAX_CHOICES,
    AskBody,
    ChatBody,
    ChatMessage,
    CompletionBody,
    ResponseFormat,
)
from p2pnode.gateway.tools import ToolStyle, style_of
from p2pnode.types import Sampling

T = TypeVar("T")

SHORT_CHARS = 4096
"""Longer prompts are turned into tokens on a thread."""
ANY_OBJECT = '{"type":"object"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one request wants: an answer per prompt and choice, in this order."""

    is_chat: bool
    prompts: tuple[tuple[int, ...], ...]
    samplings: tuple[Sampling, ...]
    """One per answer; there are as many for each prompt."""
    max_tokens: int | None
    stop: tuple[str, ...]
    wants_usage: bool
    tools: ToolStyle | None = None
    """How calls are told from text; None: the model was not told of tools."""

    def prompt_of(self, index: int) -> tuple[int, ...]:
        """The prompt of an answer."""
        return self.prompts[index // (len(self.samplings) // len(self.prompts))]


async def read_completion(model: ClientModel, body: CompletionBody) -> Ask:
    """Raises ApiError, BadRequest."""
    check_model(model.spec, body.model)
    prompts = await encoded(model, as_list(body.prompt))
    num_choices = len(prompts) * (body.n or 1)
    if num_choices > MAX_CHOICES:
        what = f"{num_choices} answers at once are too many, {MAX_CHOICES} are the most"
        raise ApiError(400, "invalid_value", what, param="n")
    sampling = _sampling(body, num_logprobs=body.logprobs)
    return Ask(
        is_chat=False,
        prompts=prompts,
        samplings=_per_choice(sampling, num_choices),
        max_tokens=body.max_tokens,
        stop=body.stops,
        wants_usage=body.wants_usage,
    )


async def read_chat(model: ClientModel, body: ChatBody) -> Ask:
    """Raises ApiError, BadRequest."""
    check_model(model.spec, body.model)
    template = model.codec.chat_template
    if template is None:
        what = "this model has no chat template; use /v1/completions"
        raise ApiError(400, "no_chat_template", what, param="messages")
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    if body.tool_choice == "none":
        tools = []
    if tools and not template.takes_tools:
        what = "this model's chat template does not tell it of tools"
        raise ApiError(400, "no_tools", what, param="tools")
    messages = [_message(message, number) for number, message in enumerate(body.messages)]
    size = sum(len(message["content"]) for message in messages) + len(str(tools))
    prompt = await _on_thread_if(size, lambda: model.codec.encode_chat(messages, tools))
    wants_logprobs = body.logprobs or body.top_logprobs is not None
    constraint = _constraint(body.response_format)
    num_logprobs = body.top_logprobs or 0 if wants_logprobs else None
    sampling = _sampling(body, num_logprobs=num_logprobs, constraint=constraint)
    return Ask(
        is_chat=True,
        prompts=(tuple(prompt),),
        samplings=_per_choice(sampling, body.n or 1),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=body.stops,
        wants_usage=body.wants_usage,
        tools=style_of(template) if tools else None,
    )


def as_list(prompt: Any) -> list[Any]:
    """One prompt, or several, as several."""
    is_one = isinstance(prompt, str) or isinstance(prompt[0], int)
    return [prompt] if is_one else prompt


async def encoded(
    model: ClientModel, prompts: Sequence[str | list[int]]
) -> tuple[tuple[int, ...], ...]:
    """Token ids of prompts; raises BadRequest."""

    def encode() -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(model.encode(prompt)) for prompt in prompts)

    return await _on_thread_if(sum(map(len, prompts)), encode)


async def _on_thread_if(num_chars: int, work: Callable[[], T]) -> T:
    if num_chars <= SHORT_CHARS:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _message(message: ChatMessage, number: int) -> dict[str, Any]:
    """As chat templates know it."""
    content = message.content or ""
    if not isinstance(content, str):
        content = "".join(part.text for part in content)
    role = "system" if message.role == "developer" else message.role
    made: dict[str, Any] = {"role": role, "content": content}
    if message.name:
        made["name"] = message.name
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": _arguments(call.function.arguments, number),
                },
            }
            for call in message.tool_calls
        ]
    return made


def _arguments(text: str, number: int) -> dict[str, Any]:
    """Templates write them as JSON themselves."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        what = f"message {number}: the arguments of a tool call must be a JSON object"
        raise ApiError(400, "invalid_value", what, param=f"messages.{number}.tool_calls")
    return arguments


def _constraint(wanted: ResponseFormat | None) -> str:
    match wanted:
        case ResponseFormat(type="json_object"):
            return ANY_OBJECT
        case ResponseFormat(type="json_schema", json_schema=None):
            what = "response_format of type json_schema needs a json_schema"
            raise ApiError(400, "invalid_value", what, param="response_format.json_schema")
        case ResponseFormat(type="json_schema", json_schema=schema) if schema:
            return json.dumps(schema.schema_, ensure_ascii=False, separators=(",", ":"))
    return ""


def _sampling(body: AskBody, *, num_logprobs: int | None, constraint: str = "") -> Sampling:
    """How to choose tokens; without a seed every answer is another one."""
    temperature = 1.0 if body.temperature is None else body.temperature
    seed = secrets.randbits(62) if body.seed is None and temperature else body.seed or 0
    try:
        return Sampling(
            temperature=temperature,
            top_k=body.top_k or 0,
            top_p=1.0 if body.top_p is None else body.top_p,
            min_p=body.min_p or 0.0,
            repetition_penalty=body.repetition_penalty or 1.0,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=_biases(body.logit_bias or {}),
            num_logprobs=num_logprobs,
            constraint=constraint,
            seed=seed % (1 << 63),
        )
    except ValueError as error:
        param = str(error).partition(" ")[0]
        param = "response_format" if param == "constraint" else param
        raise ApiError(400, "invalid_value", str(error), param=param) from None


def _biases(biases: dict[str, float]) -> tuple[tuple[int, float], ...]:
    for name in biases:
        if not (name.isascii() and name.isdecimal() and len(name) < 11):
            what = "logit_bias: keys are token ids, as texts"
            raise ApiError(400, "invalid_value", what, param="logit_bias")
    return tuple((int(name), bias) for name, bias in biases.items())


def _per_choice(sampling: Sampling, num: int) -> tuple[Sampling, ...]:
    """Each choice has its own seed, and the same one in each repetition of the request."""
    return tuple(replace(sampling, seed=(sampling.seed + i) % (1 << 63)) for i in range(num))
