"""Answers of OpenAI's Responses API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Optional

import documents
from chat import zeros
from documents import Document, Part, Reply, slices

#: What a request includes to get the thoughts back, encrypted for the vendor alone.
ENCRYPTED = "reasoning.encrypted_content"
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesTelling:
    """``/responses``: output items, told by events that are numbered through."""

    named = True
    done = False

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self._ask = reply.ask
        self._created = int(time.time())
        self._number = 0
        reason = INCOMPLETE.get(reply.finish_reason)
        self._incomplete = {"reason": reason} if reason else None
        self._status = "incomplete" if reason else "completed"
        self._items = list(self._said())
        # The numbers run through the stream, so all of it is made at once.
        self._opening = [
            self._event("response.created", response=self._response("in_progress", [])),
            self._event(
                "response.in_progress", response=self._response("in_progress", [])
            ),
        ]
        self._parts, self._after_parts = self._told()
        self._closing = [*self._after_parts, self._end()]

    @property
    def id(self) -> Optional[str]:
        return f"resp_{self._ask.provider}_{self._ask.token}{self._ask.n}"

    @property
    def usage(self) -> Optional[Document]:
        how = self.reply.usage
        if how == documents.NONE:
            return None
        counts = self.reply.counts
        usage: Document = {
            "input_tokens": counts.prompt,
            "input_tokens_details": {"cached_tokens": counts.cached},
            "output_tokens": counts.completion,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.prompt + counts.completion,
        }
        if how == documents.PARTIAL:
            del usage["total_tokens"]
        return zeros(usage) if how == documents.ZERO else usage

    def thoughts(self) -> list[str]:
        """What later requests may name of the reasoning: its encrypted text, or its id if it is stored."""
        thoughts = [item for item in self._items if item.type == "reasoning"]
        stored = thoughts if self._ask.body.get("store") is not False else []
        return [item.encrypted for item in thoughts if item.encrypted] + [item.id for item in stored]

    def whole(self) -> Document:
        return self._response(self._status, self._output(), self.usage)

    def opening(self) -> list[Document]:
        return self._opening

    def parts(self) -> list[Part]:
        return self._parts

    def closing(self) -> list[Document]:
        return self._closing

    def reports(self) -> bool:
        return self.reply.usage != documents.NONE

    def failure(
        self, after: int, message: str, type_: Optional[str], code: Optional[str]
    ) -> Document:
        """The event that the reference documents: flat, unlike any other error."""
        return {
            "type": "error",
            "code": code,
            "message": message,
            "param": None,
            "sequence_number": self._number_after(after),
        }

    def failed(self, after: int, message: str, code: str) -> Document:
        """The ``response.failed`` event after so many content chunks."""
        return {
            "type": "response.failed",
            "response": self.failed_response(message, code),
            "sequence_number": self._number_after(after),
        }

    def failed_response(self, message: str, code: str) -> Document:
        """The response as far as it is known once it has failed."""
        response = self._response("failed", [])
        return {**response, "error": {"code": code, "message": message}}

    def _number_after(self, after: int) -> int:
        return len(self._opening) + sum(len(part.events) for part in self._parts[:after])

    def _event(self, type_: str, **more: Any) -> Document:
        event = {"type": type_, **more, "sequence_number": self._number}
        self._number += 1
        return event

    def _end(self) -> Document:
        kind = "response.incomplete" if self._incomplete else "response.completed"
        return self._event(kind, response=self.whole())

    def _response(
        self, status: str, output: list[Document], usage: Optional[Document] = None
    ) -> Document:
        body = self._ask.body
        over = status in ("completed", "incomplete")
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": self._incomplete if over else None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "model": self._ask.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": body.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default" if over else "auto",
            "store": body.get("store") is not False,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
            "metadata": body.get("metadata") or {},
        }

    def _output(self) -> list[Document]:
        return [item.whole(self._status) for item in self._items]

    def _said(self) -> "Iterator[Item]":
        reply, suffix = self.reply, f"{self._ask.provider}_{self._ask.n}"
        if reply.reasoning:
            thought = Item("reasoning", f"rs_{suffix}", reply.reasoning)
            if ENCRYPTED in (self._ask.body.get("include") or []):
                thought.encrypted = f"enc_{self.id}"
            yield thought
        if reply.tool:
            yield FunctionCall(
                f"fc_{suffix}", f"call_{suffix}", reply.tool.name, reply.tool.arguments
            )
        elif reply.refusal is not None:
            yield Item("refusal", f"msg_{suffix}", reply.refusal)
        elif reply.text:
            yield Item("message", f"msg_{suffix}", reply.text)

    def _told(self) -> tuple[list[Part], list[Document]]:
        """The content chunks, and the events that remain when they are over."""
        parts: list[Part] = []
        pending: list[Document] = []
        for output_index, item in enumerate(self._items):
            where: Document = {"output_index": output_index}
            added = item.added()
            pending.append(self._event("response.output_item.added", item=added, **where))
            where["item_id"] = item.id
            if item.part_type:
                where["content_index"] = 0
                part = item.part("")
                pending.append(
                    self._event("response.content_part.added", part=part, **where)
                )
            if isinstance(item, FunctionCall):
                # The name is told as soon as the item is added.
                parts.append(Part(pending, item.name))
                pending = []
            extra: Document = {"logprobs": []} if item.type == "message" else {}
            for text in slices(item.content, self.reply.chunks):
                pending.append(
                    self._event(f"{item.told_by}.delta", delta=text, **where, **extra)
                )
                thought = text if item.type == "reasoning" else ""
                parts.append(Part(pending, "" if thought else text, thought))
                pending = []
            done = {item.content_key: item.content, **extra}
            if isinstance(item, FunctionCall):
                done["name"] = item.name
            pending.append(self._event(f"{item.told_by}.done", **where, **done))
            if item.part_type:
                part = item.part(item.content)
                pending.append(
                    self._event("response.content_part.done", part=part, **where)
                )
            pending.append(
                self._event(
                    "response.output_item.done",
                    item=item.whole(self._status),
                    output_index=output_index,
                )
            )
        return parts, pending


class Item:
    """An item with one content part: a message, a refusal or a reasoning."""

    PARTS = {
        "message": ("output_text", "text"),
        "refusal": ("refusal", "refusal"),
        "reasoning": ("reasoning_text", "text"),
    }

    def __init__(self, type_: str, id_: str, content: str) -> None:
        self.type = type_
        self.id = id_
        self.content = content
        self.encrypted: Optional[str] = None
        self.part_type, self.content_key = self.PARTS.get(type_, ("", "arguments"))

    @property
    def told_by(self) -> str:
        """The common beginning of the names of the events that carry the content."""
        return f"response.{self.part_type}"

    def part(self, content: str) -> Document:
        part: Document = {"type": self.part_type, self.content_key: content}
        if self.type == "message":
            part.update(annotations=[], logprobs=[])
        return part

    def added(self) -> Document:
        return {**self._frame(), "status": "in_progress"}

    def whole(self, status: str) -> Document:
        return {**self._frame(self.part(self.content)), "status": status}

    def _frame(self, *parts: Document) -> Document:
        if self.encrypted is not None:
            return {"id": self.id, "type": "reasoning", "summary": [], "encrypted_content": self.encrypted}
        if self.type == "reasoning":
            content = list(parts)
            return {"id": self.id, "type": "reasoning", "summary": [], "content": content}
        frame = {"id": self.id, "type": "message", "role": "assistant"}
        return {**frame, "content": list(parts)}


class FunctionCall(Item):
    """A call of one of the client's functions."""

    def __init__(self, id_: str, call_id: str, name: str, arguments: str) -> None:
        super().__init__("function_call", id_, arguments)
        self.name = name
        self._call_id = call_id

    @property
    def told_by(self) -> str:
        return "response.function_call_arguments"

    def added(self) -> Document:
        return self._call("", "in_progress")

    def whole(self, status: str) -> Document:
        return self._call(self.content, status)

    def _call(self, arguments: str, status: str) -> Document:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "arguments": arguments,
            "call_id": self._call_id,
            "name": self.name,
        }
