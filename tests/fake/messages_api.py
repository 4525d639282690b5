"""Answers of Anthropic's Messages API."""

from __future__ import annotations

import json
from typing import Any, Optional

import documents
from chat import zeros
from documents import Counts, Document, Part, Reply, complaint, slices

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
PING = {"type": "ping"}


class MessagesTelling:
    """``/messages``: content blocks, each with a start, deltas and a stop."""

    named = True
    done = False

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self._ask = reply.ask
        self._blocks = list(self._said())

    @property
    def id(self) -> Optional[str]:
        return f"msg_{self._ask.provider}_{self._ask.n}"

    @property
    def usage(self) -> Optional[Document]:
        if self.reply.usage == documents.NONE:
            return None
        counts = self.reply.counts
        return self._usage(counts, counts.completion)

    def whole(self) -> Document:
        message = self._message([block.whole() for block in self._blocks])
        message["stop_reason"] = self._stop_reason
        if self.usage is not None:
            message["usage"] = self.usage
        return message

    def opening(self) -> list[Document]:
        message = self._message([])
        if self.reply.usage != documents.NONE:
            # Anthropic counts one token or a few as soon as it begins.
            message["usage"] = self._usage(self.reply.counts, 1)
        events: list[Document] = [{"type": "message_start", "message": message}]
        if self._blocks and not self._blocks[0].starts_with_content:
            events.append(self._blocks[0].start(0))
        return [*events, PING]

    def parts(self) -> list[Part]:
        parts: list[Part] = []
        before: list[Document] = []
        for index, block in enumerate(self._blocks):
            if block.starts_with_content:
                parts.append(Part([*before, block.start(index)], block.name))
                before = []
            elif index > 0:
                before.append(block.start(index))
            for delta, said in block.deltas(self.reply.chunks):
                event = {"type": "content_block_delta", "index": index, "delta": delta}
                thought = said if block.kind == "thinking" else ""
                parts.append(Part([*before, event], "" if thought else said, thought))
                before = []
            if block.kind == "thinking" and parts:
                # The signature carries nothing of its own: it goes with the rest.
                signature = {"type": "signature_delta", "signature": SIGNATURE}
                parts[-1].events.append(
                    {"type": "content_block_delta", "index": index, "delta": signature}
                )
            if index + 1 < len(self._blocks):
                before.append({"type": "content_block_stop", "index": index})
        return parts

    def closing(self) -> list[Document]:
        events: list[Document] = []
        if self._blocks:
            last = len(self._blocks) - 1
            events.append({"type": "content_block_stop", "index": last})
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        event: Document = {"type": "message_delta", "delta": delta}
        usage = self.usage
        if usage is not None:
            if self.reply.usage == documents.PARTIAL:
                usage = {"output_tokens": usage["output_tokens"]}
            event["usage"] = usage
        return [*events, event, {"type": "message_stop"}]

    def reports(self) -> bool:
        return self.reply.usage != documents.NONE

    def failure(
        self, after: int, message: str, type_: Optional[str], code: Optional[str]
    ) -> Document:
        envelope = complaint(self._ask, 500, message, type_)
        del envelope["request_id"]  # only the errors of whole answers have it
        return envelope

    @property
    def _stop_reason(self) -> str:
        if self.reply.refusal is not None:
            return "refusal"
        reason = self.reply.finish_reason
        return STOP_REASONS.get(reason, reason)

    def _usage(self, counts: Counts, output: int) -> Document:
        uncached = counts.prompt - counts.cached - counts.written
        usage: Document = {"input_tokens": uncached}
        if self.reply.usage != documents.PARTIAL:
            usage["cache_creation_input_tokens"] = counts.written
            usage["cache_read_input_tokens"] = counts.cached
        usage["output_tokens"] = output
        return zeros(usage) if self.reply.usage == documents.ZERO else usage

    def _message(self, content: list[Document]) -> Document:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._ask.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _said(self) -> "list[Block]":
        reply = self.reply
        blocks = []
        if reply.reasoning:
            blocks.append(Block("thinking", reply.reasoning))
        text = reply.text if reply.refusal is None else reply.refusal
        if text:
            blocks.append(Block("text", text))
        if reply.tool:
            call = f"toolu_{self._ask.provider}_{self._ask.n}"
            blocks.append(Block("tool_use", reply.tool.arguments, reply.tool.name, call))
        return blocks


SIGNATURE = "c2lnbmVkIGJ5IHRoZSBmYWtl"


class Block:
    """One content block of an answer."""

    def __init__(self, kind: str, content: str, name: str = "", id_: str = "") -> None:
        self.kind = kind
        self.name = name
        self._content = content
        self._id = id_

    @property
    def starts_with_content(self) -> bool:
        """Whether the start already says something: a tool's name."""
        return self.kind == "tool_use"

    def whole(self) -> Document:
        if self.kind == "tool_use":
            return self._tool(_parsed(self._content))
        if self.kind == "thinking":
            return self._thinking(self._content, SIGNATURE)
        return {"type": "text", "text": self._content}

    def start(self, index: int) -> Document:
        if self.kind == "tool_use":
            empty = self._tool({})
        elif self.kind == "thinking":
            empty = self._thinking("", "")
        else:
            empty = {"type": "text", "text": ""}
        return {"type": "content_block_start", "index": index, "content_block": empty}

    def deltas(self, count: int) -> list[tuple[Document, str]]:
        """The deltas, each with the part of the content that it carries."""
        if self.kind == "tool_use":
            # The first fragment is always empty.
            parts = ["", *slices(self._content, count)]
            return [({"type": "input_json_delta", "partial_json": p}, p) for p in parts]
        return [
            ({"type": f"{self.kind}_delta", self.kind: part}, part)
            for part in slices(self._content, count)
        ]

    def _tool(self, arguments: Any) -> Document:
        return {
            "type": "tool_use",
            "id": self._id,
            "name": self.name,
            "input": arguments,
        }

    @staticmethod
    def _thinking(text: str, signature: str) -> Document:
        return {"type": "thinking", "thinking": text, "signature": signature}


def _parsed(arguments: str) -> Any:
    """The arguments as Anthropic sends them: an object, not a text."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}
