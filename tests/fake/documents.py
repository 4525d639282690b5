"""What an OpenAI-compatible vendor says: requests understood, answers built.

Only documents live here. How (and whether) they reach the client is decided
by ``behaviour.py``.
"""

from __future__ import annotations

import base64
import json
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Optional

Document = dict[str, Any]

CHAT = "chat"
COMPLETION = "completion"
EMBEDDING = "embedding"

EMBEDDING_DIMENSIONS = 8
CACHE_UNIT = 64  # DeepSeek's prompt cache counts in blocks of 64 tokens


def encode(document: Any) -> bytes:
    """Compact UTF-8 JSON; a lone surrogate becomes ``?`` rather than an error."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def tokens(text: str) -> int:
    """The fake's tokenizer: one token per four characters, rounded up."""
    return (len(text) + 3) // 4


def slices(text: str, count: int) -> list[str]:
    """Cut ``text`` into ``count`` non-empty parts, or fewer if it is too short."""
    count = max(1, min(count, len(text)))
    bounds = [len(text) * i // count for i in range(count + 1)]
    return [text[a:b] for a, b in zip(bounds, bounds[1:]) if a < b]


def error_envelope(
    message: str, type_: Optional[str] = None, code: Optional[str] = None
) -> Document:
    """The error document OpenAI and its imitators send."""
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


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

    return "".join(gather(body.get(key)) for key in ("messages", "prompt", "input"))


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

    @property
    def kind(self) -> str:
        """Which endpoint was asked; anything unknown is taken for chat."""
        path = self.path.partition("?")[0]
        if path.endswith("/embeddings"):
            return EMBEDDING
        if path.endswith("/completions") and not path.endswith("/chat/completions"):
            return COMPLETION
        return CHAT

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


@dataclass(frozen=True)
class ToolCall:
    """One function call of an assistant message."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One answer, which can be told whole or as the chunks of a stream."""

    ask: Ask
    text: str
    chunks: int = 5
    reasoning: str = ""
    refusal: Optional[str] = None
    tool: Optional[ToolCall] = None
    finish_reason: str = "stop"

    @property
    def usage(self) -> Document:
        prompt = tokens(prompt_text(self.ask.body))
        if self.ask.kind == EMBEDDING:
            return {"prompt_tokens": prompt, "total_tokens": prompt}
        reasoning = tokens(self.reasoning)
        said = self.text + (self.refusal or "")
        if self.tool:
            said += self.tool.name + self.tool.arguments
        completion = tokens(said) + reasoning
        cached = prompt // CACHE_UNIT * CACHE_UNIT
        usage: Document = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
        if self.ask.dialect == "deepseek":
            usage["prompt_cache_hit_tokens"] = cached
            usage["prompt_cache_miss_tokens"] = prompt - cached
        return usage

    def whole(self) -> Document:
        """The answer to a request without ``stream``."""
        if self.ask.kind == EMBEDDING:
            return self._embeddings()
        if self.ask.kind == COMPLETION:
            choice: Document = {"text": self.text, "index": 0, "logprobs": None}
        else:
            choice = {"index": 0, "message": self._message(), "logprobs": None}
        choice["finish_reason"] = self.finish_reason
        return {
            **self._identity("chat.completion"),
            "choices": [choice],
            "usage": self.usage,
        }

    def opening(self) -> list[Document]:
        """The role-only chunk; legacy completions have no roles, hence none."""
        if self.ask.kind == COMPLETION:
            return []
        delta: Document = {"role": "assistant", "content": ""}
        if self.tool or self.reasoning:
            delta["content"] = None
        if self.reasoning:
            delta["reasoning_content"] = ""
        if self.refusal is None:
            delta["refusal"] = None
        return [self._chunk(delta)]

    def deltas(self) -> list[Document]:
        """The chunks that carry something, in the order a vendor sends them."""
        if self.ask.kind == COMPLETION:
            return [self._text_chunk(part) for part in slices(self.text, self.chunks)]
        said: list[Document] = [
            {"content": None, "reasoning_content": part}
            for part in slices(self.reasoning, self.chunks)
        ]
        if self.tool:
            said += self._tool_deltas(self.tool)
        elif self.refusal is not None:
            said += [{"refusal": part} for part in slices(self.refusal, self.chunks)]
        else:
            said += [{"content": part} for part in slices(self.text, self.chunks)]
        return [self._chunk(delta) for delta in said]

    def closing(self) -> Document:
        """The chunk with the finish reason."""
        if self.ask.kind == COMPLETION:
            return self._text_chunk("", self.finish_reason)
        return self._chunk({}, self.finish_reason)

    def usage_chunk(self) -> Document:
        """The chunk sent last if the client asked for usage."""
        return {**self._chunk({}), "choices": [], "usage": self.usage}

    def _identity(self, kind: str) -> Document:
        if self.ask.kind == COMPLETION:
            prefix, kind = "cmpl", "text_completion"
        else:
            prefix = "chatcmpl"
        return {
            "id": f"{prefix}-{self.ask.provider}-{self.ask.n}",
            "object": kind,
            "created": int(time.time()),
            "model": self.ask.model,
            "system_fingerprint": f"fp_{self.ask.provider}",
        }

    def _message(self) -> Document:
        message: Document = {
            "role": "assistant",
            "content": self.text,
            "refusal": self.refusal,
        }
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.refusal is not None:
            message["content"] = None
        if self.tool:
            message["content"] = None
            message["tool_calls"] = [
                {
                    "id": self._call_id,
                    "type": "function",
                    "function": {
                        "name": self.tool.name,
                        "arguments": self.tool.arguments,
                    },
                }
            ]
        return message

    def _tool_deltas(self, tool: ToolCall) -> list[Document]:
        """Name first, then the arguments as fragments of JSON, as OpenAI does."""
        first = {
            "index": 0,
            "id": self._call_id,
            "type": "function",
            "function": {"name": tool.name, "arguments": ""},
        }
        rest = [
            {"index": 0, "function": {"arguments": part}}
            for part in slices(tool.arguments, self.chunks)
        ]
        return [{"tool_calls": [call]} for call in [first, *rest]]

    @property
    def _call_id(self) -> str:
        return f"call_{self.ask.provider}_{self.ask.n}"

    def _chunk(self, delta: Document, finish: Optional[str] = None) -> Document:
        return self._stream_document(
            {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        )

    def _text_chunk(self, text: str, finish: Optional[str] = None) -> Document:
        return self._stream_document(
            {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        )

    def _stream_document(self, choice: Document) -> Document:
        document = {
            **self._identity("chat.completion.chunk"),
            "choices": [choice],
        }
        if self.ask.include_usage:
            document["usage"] = None  # OpenAI announces the usage to come this way
        return document

    def _embeddings(self) -> Document:
        asked = self.ask.body.get("input")
        texts = asked if isinstance(asked, list) else [asked]
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": self._vector(text)}
                for i, text in enumerate(texts)
            ],
            "model": self.ask.model,
            "usage": self.usage,
        }

    def _vector(self, text: Any) -> Any:
        """A vector made from the length of the text; base64 on request."""
        size = len(str(text))
        vector = [1 / (size + i + 1) for i in range(EMBEDDING_DIMENSIONS)]
        if self.ask.body.get("encoding_format") == "base64":
            packed = struct.pack(f"<{len(vector)}f", *vector)
            return base64.b64encode(packed).decode("ascii")
        return vector
