"""Calls are told from text in the forms that models are taught, and in no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.gateway.tools import ToolReader, ToolStyle, read_calls, style_of
from p2pnode.model.chat import ChatTemplate
from tests.gateway.swarms import gateway_on

CALL = '{"name": "look", "arguments": {"at": "it"}}'
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

HERMES = "{% if tools %}<tool_call>{'name': , 'arguments': }{% endif %}{{ messages[0].content }}"
MISTRAL = "{% if tools is not none %}[TOOL_CALLS]{% endif %}"
LLAMA = "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}<|python_tag|>"
PLAIN = "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("source", "takes", "style"),
    [
        (HERMES, True, ToolStyle.TAGS),
        (MISTRAL, True, ToolStyle.LIST),
        (LLAMA, True, ToolStyle.OBJECT),
        ("{{ tools }}", True, ToolStyle.UNKNOWN),
        (PLAIN, False, ToolStyle.UNKNOWN),
        ("{% if", False, ToolStyle.UNKNOWN),
    ],
)
def test_a_template_says_whether_and_how(source: str, takes: bool, style: ToolStyle) -> None:
    template = ChatTemplate(source, {})
    assert (template.takes_tools, style_of(template)) == (takes, style)


@pytest.mark.parametrize(
    ("style", "answer", "text", "names"),
    [
        (ToolStyle.TAGS, f"Well.\n<tool_call>\n{CALL}\n</tool_call>", "Well.\n", ["look"]),
        (
            ToolStyle.TAGS,
            f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>",
            "",
            ["look", "look"],
        ),
        (ToolStyle.TAGS, "<tool_call>{bad}</tool_call>", "<tool_call>{bad}</tool_call>", []),
        (ToolStyle.TAGS, "1 <tool 2", "1 <tool 2", []),
        (ToolStyle.TAGS, CALL, CALL, []),
        (ToolStyle.LIST, f"[TOOL_CALLS] [{CALL}, {CALL}]", "", ["look", "look"]),
        (ToolStyle.LIST, f" [{CALL}]", "", ["look"]),
        (ToolStyle.LIST, "[1, 2]", "[1, 2]", []),
        (ToolStyle.LIST, f"So: [{CALL}]", f"So: [{CALL}]", []),
        (ToolStyle.OBJECT, CALL.replace("arguments", "parameters"), "", ["look"]),
        (ToolStyle.OBJECT, f"<|python_tag|>{CALL}", "", ["look"]),
        (ToolStyle.OBJECT, '{"a": 1}', '{"a": 1}', []),
        (ToolStyle.UNKNOWN, CALL, CALL, []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_in_pieces_is_text_and_calls(
    size: int, style: ToolStyle, answer: str, text: str, names: list[str]
) -> None:
    reader, told = ToolReader(style), ""
    for start in range(0, len(answer), size):
        told += reader.push(answer[start : start + size])
    rest, calls = reader.finish()
    assert told + rest == text
    assert [call.name for call in calls] == names
    assert all(json.loads(call.arguments) == {"at": "it"} for call in calls)


@pytest.mark.parametrize(
    "call",
    [
        '{"name": 1, "arguments": {}}',
        '{"name": "", "arguments": {}}',
        '{"name": "f"}',
        '{"name": "f", "arguments": "no"}',
        '{"name": "f", "arguments": []}',
        "[" * 100_000,
    ],
)
def test_what_only_looks_like_a_call_is_none(call: str) -> None:
    for style in ToolStyle:
        assert read_calls(style, call) == ()
    assert read_calls(ToolStyle.TAGS, f"<tool_call>{CALL}<tool_call>{call}") == ()


def test_a_template_is_told_of_tools_and_of_their_answers() -> None:
    each = "{% for m in messages %}{{ m.tool_calls | default(none) | tojson }}{% endfor %}"
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
    ]
    rendered = ChatTemplate(each + "{{ tools | tojson }}", {}).render(messages, [TOOL])
    assert rendered == json.dumps(calls) + "null" + json.dumps([TOOL])


@pytest.mark.virtual_time
async def test_tools_are_refused_where_the_template_would_not_tell_of_them(
    builtin: Path, cache: Path
) -> None:
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}
    async with gateway_on(builtin, cache, "0-26") as asked:
        answer = await asked.post("/v1/chat/completions", **chat, tools=[TOOL])
        without = await asked.post("/v1/chat/completions", **chat, tools=[TOOL], tool_choice="none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_tools")
    assert without.status_code == 200
