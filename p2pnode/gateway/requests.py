"""The bodies of requests, read strictly: an unknown field or a wrong type is a 400 that names it.

Fields of OpenAI's that change nothing here (``user``, ``metadata``, ...) are taken and ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CHOICES = 16
"""Of all prompts of a request together."""
MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_STOPS = 16
MAX_BIASED = 300


class Body(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Name = Annotated[str, Field(min_length=1, max_length=256)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Prompt = Annotated[list[TokenId], Field(min_length=1)]


class StreamOptions(Body):
    """What a stream says besides the text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """Ignored: nothing is padded."""


class Ignored(Body):
    """Taken, and without any effect."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None


class AskBody(Ignored):
    """What chats and completions have in common."""

    model: Name
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = 1
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    top_k: Annotated[int, Field(ge=0, le=1 << 24)] | None = 0
    min_p: Annotated[float, Field(ge=0, le=1)] | None = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = 1.0
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASED)]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream tells the sums."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(AskBody):
    """``POST /v1/completions``."""

    prompt: (
        str
        | Prompt
        | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)]
        | Annotated[list[Prompt], Field(min_length=1, max_length=MAX_CHOICES)]
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] | None = False
    suffix: None = None
    best_of: Literal[1] | None = None


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class CalledFunction(Body):
    """What an assistant wanted to be called."""

    name: Name
    arguments: str


class ToolCall(Body):
    """One call that an assistant made."""

    id: Name
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Body):
    """One message; what answers hold besides is taken back and ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Name | None = None
    refusal: Any = None
    annotations: Any = None
    audio: None = None
    function_call: None = None


class FunctionTool(Body):
    """What a model may ask to be called."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool, which is a function."""

    type: Literal["function"]
    function: FunctionTool


class JsonSchema(Body):
    """What an answer must satisfy."""

    name: Name
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatBody(AskBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None


class EmbeddingsBody(Ignored):
    """``POST /v1/embeddings``."""

    model: Name
    input: (
        str
        | Prompt
        | Annotated[list[str], Field(min_length=1, max_length=256)]
        | Annotated[list[Prompt], Field(min_length=1, max_length=256)]
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: None = None


class ResumeBody(Body):
    """``POST /v1/resume``."""

    id: Name
    stream: bool | None = True
