"""What a vendor understands of a request, and what it has to say in answer.

Nothing here knows a wire format: ``chat.py``, ``messages_api.py`` and
``responses_api.py`` turn a :class:`Reply` into documents and events, and how
(and whether) these reach the client is decided by ``behaviour.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Optional, Protocol

from tokenizer import Count, by_length

Document = dict[str, Any]

CHAT = "chat"
COMPLETION = "completion"
EMBEDDING = "embedding"
MESSAGES = "messages"
RESPONSES = "responses"

ANTHROPIC, DEEPSEEK, OPENAI = "anthropic", "deepseek", "openai"

CACHE_UNIT = 64  # DeepSeek's prompt cache counts in blocks of 64 tokens

# In which way an answer tells its usage; README.md explains each.
NORMAL = "normal"
NONE = "none"
ZERO = "zero"
IN_LAST_CHUNK = "in_last_chunk"
EVERY_CHUNK = "every_chunk"
DEEPSEEK_ONLY = "deepseek_only"
PARTIAL = "partial"


def encode(document: Any) -> bytes:
    """Compact UTF-8 JSON; a lone surrogate becomes ``?`` rather than an error."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def slices(text: str, count: int) -> list[str]:
    """Cut ``text`` into ``count`` non-empty parts, or fewer if it is too short."""
    count = max(1, min(count, len(text)))
    bounds = [len(text) * i // count for i in range(count + 1)]
    return [text[a:b] for a, b in zip(bounds, bounds[1:]) if a < b]


def error_envelope(
    message: str,
    type_: Optional[str] = None,
    code: Optional[str] = None,
    param: Optional[str] = None,
) -> Document:
    """The error document OpenAI and its imitators send."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def prompt_text(body: Document) -> str:
    """All text of a request that a vendor would count as its prompt."""

    def gather(value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return "".join(map(gather, value))
        if isinstance(value, dict):
            return gather(value.get("content")) + gather(value.get("text"))
        return ""

    keys = ("messages", "prompt", "input", "system", "instructions")
    return "".join(gather(body.get(key)) for key in keys)


def has_key(value: Any, key: str) -> bool:
    """Whether an object with this key is anywhere in ``value``."""
    # No recursion: a request may be nested more deeply than Python's stack.
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if key in one:
                return True
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return False


def kind_of(path: str) -> str:
    """Which endpoint a path means; anything unknown is taken for chat."""
    path = path.partition("?")[0]
    if path.endswith("/embeddings"):
        return EMBEDDING
    if path.endswith("/messages"):
        return MESSAGES
    if path.endswith("/responses"):
        return RESPONSES
    if path.endswith("/completions") and not path.endswith("/chat/completions"):
        return COMPLETION
    return CHAT


@dataclass(frozen=True)
class Ask:
    """The facts about one request on which an answer depends."""

    n: int
    provider: str
    dialect: str
    base_url: str
    path: str
    body: Document = field(default_factory=dict)
    first_on_connection: bool = True
    #: Makes the ids of this process differ from those of any other.
    token: str = ""
    #: Tokens of the conversation that ``previous_response_id`` continues.
    context_tokens: int = 0
    count: Count = by_length

    @cached_property
    def kind(self) -> str:
        return kind_of(self.path)

    @property
    def model(self) -> str:
        return str(self.body.get("model") or "unknown")

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True and self.kind != EMBEDDING

    @property
    def include_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def anthropic(self) -> bool:
        """Whether errors are told in Anthropic's way."""
        return self.kind == MESSAGES or self.dialect == ANTHROPIC

    @property
    def request_id(self) -> str:
        return f"req_{self.provider}_{self.n}"


@dataclass(frozen=True)
class ToolCall:
    """One function call of an assistant message."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Counts:
    """Tokens of one answer. ``cached`` and ``written`` are part of ``prompt``,
    ``reasoning`` is part of ``completion``."""

    prompt: int
    completion: int
    reasoning: int
    cached: int
    written: int


@dataclass(frozen=True)
class Reply:
    """One answer, whatever the format in which it will be told."""

    ask: Ask
    text: str
    chunks: int = 5
    reasoning: str = ""
    refusal: Optional[str] = None
    tool: Optional[ToolCall] = None
    finish_reason: str = "stop"
    usage: str = NORMAL
    cached: Optional[int] = None
    cache_written: int = 0

    @cached_property
    def prompt_tokens(self) -> int:
        count = self.ask.count(prompt_text(self.ask.body))
        return count + self.ask.context_tokens

    @cached_property
    def counts(self) -> Counts:
        """The tokens of the whole answer."""
        said = self.text + (self.refusal or "")
        if self.tool:
            said += self.tool.name + self.tool.arguments
        return self.counts_of(said, self.reasoning)

    def counts_of(self, said: str, thought: str) -> Counts:
        """The tokens if no more than this had been said and thought."""
        prompt = self.prompt_tokens
        reasoning = self.ask.count(thought)
        cached = prompt // CACHE_UNIT * CACHE_UNIT
        if self.ask.kind == MESSAGES and not has_key(self.ask.body, "cache_control"):
            cached = 0  # Anthropic caches only where it is asked to
        if self.cached is not None:
            cached = min(prompt, self.cached)
        written = min(prompt - cached, self.cache_written)
        completion = self.ask.count(said) + reasoning
        return Counts(prompt, completion, reasoning, cached, written)


@dataclass(frozen=True)
class Part:
    """One content chunk of a stream: its events, and what they tell of the answer."""

    events: list[Document]
    said: str = ""
    thought: str = ""
    #: Usage that these events report, if any.
    reported: Optional[Document] = None


class Telling(Protocol):
    """A reply in the format of one endpoint.

    A stream consists of ``opening``, ``parts`` and ``closing``, in this order.
    """

    reply: Reply
    #: Whether events have an ``event`` line, which repeats their ``type``.
    named: bool
    #: Whether ``data: [DONE]`` ends a stream.
    done: bool

    @property
    def id(self) -> Optional[str]:
        """The id of the answer; embeddings have none."""

    @property
    def usage(self) -> Optional[Document]:
        """What the answer reports as its usage, or None if it does not."""

    def whole(self) -> Document:
        """The answer as one document."""

    def opening(self) -> list[Document]:
        """The events before any content."""

    def parts(self) -> list[Part]:
        """The content chunks."""

    def closing(self) -> list[Document]:
        """The events after the content; the last one is the end of the stream."""

    def reports(self) -> bool:
        """Whether ``closing`` tells the usage."""

    def failure(
        self, after: int, message: str, type_: Optional[str], code: Optional[str]
    ) -> Document:
        """The event of an error that happens after so many content chunks."""


def complaint(
    ask: Ask,
    status: int,
    message: Optional[str] = None,
    type_: Optional[str] = None,
    code: Optional[str] = None,
    param: Optional[str] = None,
) -> Document:
    """The error document that goes with a status, as the vendor words it."""
    if ask.anthropic:
        known_type, known_message = ANTHROPIC_ERRORS.get(
            status, ANTHROPIC_ERRORS[500 if status >= 500 else 400]
        )
        return {
            "type": "error",
            "error": {
                "type": ANTHROPIC_TYPES.get(type_ or "", type_) or known_type,
                "message": message or known_message,
            },
            "request_id": ask.request_id,
        }
    known = OPENAI_ERRORS.get(status, OPENAI_ERRORS[500 if status >= 500 else 400])
    return error_envelope(message or known[2], type_ or known[0], code or known[1], param)


OPENAI_ERRORS: dict[int, tuple[str, Optional[str], str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("unknown_error", "invalid_request_error", "Insufficient Balance"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error."),
    503: ("server_error", None, "The engine is currently overloaded."),
}

ANTHROPIC_ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "The request is not valid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "The credit balance is too low."),
    403: ("permission_error", "The key may not use this resource."),
    404: ("not_found_error", "model: unknown"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "The rate limit of the organization is exceeded."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}

# OpenAI's types, with which steps are written, in Anthropic's words.
ANTHROPIC_TYPES = {
    "server_error": "api_error",
    "requests": "rate_limit_error",
    "tokens": "rate_limit_error",
    "insufficient_quota": "billing_error",
}
