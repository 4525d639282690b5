"""Answers of OpenAI's older endpoints: chat, legacy completions, embeddings."""

from __future__ import annotations

import base64
import struct
import time
from typing import Any, Optional

import documents
from documents import (
    COMPLETION,
    DEEPSEEK,
    Counts,
    Document,
    Part,
    Reply,
    ToolCall,
    error_envelope,
    slices,
)

EMBEDDING_DIMENSIONS = 8


class ChatTelling:
    """``/chat/completions`` and ``/completions``."""

    named = False
    done = True

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self._ask = reply.ask
        self._legacy = reply.ask.kind == COMPLETION
        self._created = int(time.time())

    @property
    def id(self) -> Optional[str]:
        prefix = "cmpl" if self._legacy else "chatcmpl"
        return f"{prefix}-{self._ask.provider}-{self._ask.n}"

    @property
    def usage(self) -> Optional[Document]:
        return self._usage(self.reply.counts)

    def whole(self) -> Document:
        reply = self.reply
        if self._legacy:
            choice: Document = {"text": reply.text, "index": 0, "logprobs": None}
        else:
            choice = {"index": 0, "message": self._message(), "logprobs": None}
        choice["finish_reason"] = reply.finish_reason
        document = {**self._identity("chat.completion"), "choices": [choice]}
        usage = self.usage
        return document if usage is None else {**document, "usage": usage}

    def opening(self) -> list[Document]:
        """The role-only chunk; legacy completions have no roles, hence none."""
        reply = self.reply
        if self._legacy:
            return []
        delta: Document = {"role": "assistant", "content": ""}
        if reply.tool or reply.reasoning:
            delta["content"] = None
        if reply.reasoning:
            delta["reasoning_content"] = ""
        if reply.refusal is None:
            delta["refusal"] = None
        return [self._running(self._chunk(delta), "", "")]

    def parts(self) -> list[Part]:
        parts: list[Part] = []
        said = thought = ""
        for delta, more_said, more_thought in self._deltas():
            if self.reply.usage == documents.EVERY_CHUNK:
                said, thought = said + more_said, thought + more_thought
            chunk = self._text_chunk(delta) if self._legacy else self._chunk(delta)
            chunk = self._running(chunk, said, thought)
            reported = chunk.get("usage")
            parts.append(Part([chunk], more_said, more_thought, reported))
        return parts

    def closing(self) -> list[Document]:
        reply = self.reply
        if self._legacy:
            last = self._text_chunk("", reply.finish_reason)
        else:
            last = self._chunk({}, reply.finish_reason)
        if reply.usage in (documents.IN_LAST_CHUNK, documents.EVERY_CHUNK):
            last["usage"] = self.usage
        events = [last]
        if self._own_usage_chunk():
            empty = self._stream_document({})
            events.append({**empty, "choices": [], "usage": self.usage})
        return events

    def reports(self) -> bool:
        in_others = (documents.IN_LAST_CHUNK, documents.EVERY_CHUNK)
        return self._own_usage_chunk() or self.reply.usage in in_others

    def failure(
        self, after: int, message: str, type_: Optional[str], code: Optional[str]
    ) -> Document:
        return error_envelope(message, type_, code)

    def _own_usage_chunk(self) -> bool:
        elsewhere = (documents.NONE, documents.IN_LAST_CHUNK)
        return self._ask.include_usage and self.reply.usage not in elsewhere

    def _running(self, chunk: Document, said: str, thought: str) -> Document:
        """The chunk, with what was used so far if every chunk is to say so."""
        if self.reply.usage != documents.EVERY_CHUNK:
            return chunk
        return {**chunk, "usage": self._usage(self.reply.counts_of(said, thought))}

    def _usage(self, counts: Counts) -> Optional[Document]:
        how = self.reply.usage
        if how == documents.NONE:
            return None
        usage: Document = {
            "prompt_tokens": counts.prompt,
            "completion_tokens": counts.completion,
            "total_tokens": counts.prompt + counts.completion,
        }
        if how != documents.DEEPSEEK_ONLY:
            usage["prompt_tokens_details"] = {"cached_tokens": counts.cached}
        usage["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning}
        if self._ask.dialect == DEEPSEEK or how == documents.DEEPSEEK_ONLY:
            usage["prompt_cache_hit_tokens"] = counts.cached
            usage["prompt_cache_miss_tokens"] = counts.prompt - counts.cached
        if how == documents.PARTIAL:
            del usage["total_tokens"]
        return zeros(usage) if how == documents.ZERO else usage

    def _identity(self, kind: str) -> Document:
        return {
            "id": self.id,
            "object": "text_completion" if self._legacy else kind,
            "created": self._created,
            "model": self._ask.model,
            "system_fingerprint": f"fp_{self._ask.provider}",
        }

    def _message(self) -> Document:
        reply = self.reply
        message: Document = {
            "role": "assistant",
            "content": reply.text,
            "refusal": reply.refusal,
        }
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        if reply.refusal is not None:
            message["content"] = None
        if reply.tool:
            message["content"] = None
            message["tool_calls"] = [
                {
                    "id": self._call_id,
                    "type": "function",
                    "function": {
                        "name": reply.tool.name,
                        "arguments": reply.tool.arguments,
                    },
                }
            ]
        return message

    def _deltas(self) -> list[tuple[Any, str, str]]:
        """What the chunks carry, in a vendor's order, with what it says or thinks."""
        reply = self.reply
        if self._legacy:
            return [(part, part, "") for part in slices(reply.text, reply.chunks)]
        deltas: list[tuple[Any, str, str]] = [
            ({"content": None, "reasoning_content": part}, "", part)
            for part in slices(reply.reasoning, reply.chunks)
        ]
        if reply.tool:
            return deltas + self._tool_deltas(reply.tool)
        said, key = reply.text, "content"
        if reply.refusal is not None:
            said, key = reply.refusal, "refusal"
        return deltas + [({key: part}, part, "") for part in slices(said, reply.chunks)]

    def _tool_deltas(self, tool: ToolCall) -> list[tuple[Any, str, str]]:
        """Name first, then the arguments as fragments of JSON, as OpenAI does."""
        first = {
            "index": 0,
            "id": self._call_id,
            "type": "function",
            "function": {"name": tool.name, "arguments": ""},
        }
        calls: list[tuple[Document, str]] = [(first, tool.name)]
        calls += [
            ({"index": 0, "function": {"arguments": part}}, part)
            for part in slices(tool.arguments, self.reply.chunks)
        ]
        return [({"tool_calls": [call]}, said, "") for call, said in calls]

    @property
    def _call_id(self) -> str:
        return f"call_{self._ask.provider}_{self._ask.n}"

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
        if self._own_usage_chunk():
            document["usage"] = None  # OpenAI announces the usage to come this way
        return document


class EmbeddingTelling:
    """``/embeddings``, which is never streamed."""

    named = False
    done = False
    id = None

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self._ask = reply.ask

    @property
    def usage(self) -> Optional[Document]:
        how = self.reply.usage
        prompt = self.reply.prompt_tokens
        usage = {"prompt_tokens": prompt, "total_tokens": prompt}
        if how == documents.NONE:
            return None
        if how == documents.PARTIAL:
            del usage["total_tokens"]
        return zeros(usage) if how == documents.ZERO else usage

    def whole(self) -> Document:
        asked = self._ask.body.get("input")
        texts = asked if isinstance(asked, list) else [asked]
        document = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": self._vector(text)}
                for i, text in enumerate(texts)
            ],
            "model": self._ask.model,
        }
        usage = self.usage
        return document if usage is None else {**document, "usage": usage}

    def opening(self) -> list[Document]:
        return []

    def parts(self) -> list[Part]:
        return []

    def closing(self) -> list[Document]:
        return []

    def reports(self) -> bool:
        return False

    def failure(
        self, after: int, message: str, type_: Optional[str], code: Optional[str]
    ) -> Document:
        return error_envelope(message, type_, code)

    def _vector(self, text: Any) -> Any:
        """A vector made from the length of the text; base64 on request."""
        size = len(str(text))
        vector = [1 / (size + i + 1) for i in range(EMBEDDING_DIMENSIONS)]
        if self._ask.body.get("encoding_format") == "base64":
            packed = struct.pack(f"<{len(vector)}f", *vector)
            return base64.b64encode(packed).decode("ascii")
        return vector


def zeros(usage: Document) -> Document:
    """The same usage with every number zero."""
    return {
        key: zeros(value) if isinstance(value, dict) else 0
        for key, value in usage.items()
    }
