"""Answers as careless imitators of OpenAI send them.

Each fault is a small change to a chat document, whole or chunk. Documents of
other formats pass unchanged: nobody imitates those carelessly yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal, Optional

from documents import Document, Part, Reply, Telling

Miss = Literal[
    "id", "object", "created", "model", "index", "role", "content", "finish_reason",
    "logprobs", "system_fingerprint", "created_float", "finish_reason_null_at_end",
    "finish_reason_empty", "role_everywhere", "tool_type", "tool_id", "tool_index",
    "arguments_object", "reasoning", "service_tier", "choices_null",
    "tool_id_first", "tool_name_cut", "tool_everywhere", "tool_from_one", "usage_twice",
]  # fmt: skip

# What the document itself lacks; everything else concerns its choices.
TOP_LEVEL = ("id", "object", "created", "model", "system_fingerprint")


class SloppyTelling:
    """The telling of another format with some fields left out or bent."""

    def __init__(
        self, telling: Telling, miss: Iterable[str], finish: Optional[str]
    ) -> None:
        self._telling = telling
        self._miss = frozenset(miss)
        self._finish = finish
        self.reply: Reply = telling.reply
        self.named = telling.named
        self.done = telling.done

    @property
    def id(self) -> Optional[str]:
        return None if "id" in self._miss else self._telling.id

    @property
    def usage(self) -> Optional[Document]:
        return self._telling.usage

    def whole(self) -> Document:
        return self._bend(self._telling.whole())

    def opening(self) -> list[Document]:
        return [self._bend(event) for event in self._telling.opening()]

    def parts(self) -> list[Part]:
        parts = self._telling.parts()
        if "arguments_object" in self._miss:
            parts = self._whole_arguments(parts)
        parts = self._call_in_pieces(parts)
        return [
            replace(part, events=[self._bend(one) for one in part.events])
            for part in parts
        ]

    def closing(self) -> list[Document]:
        closing = self._telling.closing()
        if "usage_twice" in self._miss:
            closing += [event for event in closing[-1:] if event.get("usage")]
        return [self._bend(event) for event in closing]

    def reports(self) -> bool:
        return self._telling.reports()

    def failure(
        self, after: int, message: str, type_: Optional[str], code: Optional[str]
    ) -> Document:
        return self._telling.failure(after, message, type_, code)

    def _whole_arguments(self, parts: list[Part]) -> list[Part]:
        """Name and arguments of a call in one chunk: an object has no fragments."""
        tool = self.reply.tool
        calls = [call for part in parts for call in _calls_of(part)]
        if tool is None or not calls:
            return parts
        calls[0]["function"]["arguments"] = tool.arguments
        first = next(i for i, part in enumerate(parts) if part.said)
        said = "".join(part.said for part in parts[first:])
        return [*parts[:first], Part(parts[first].events, said)]

    def _call_in_pieces(self, parts: list[Part]) -> list[Part]:
        """The deltas of a call, cut or repeated where no delta of OpenAI's is."""
        miss = self._miss
        first: Document = {}
        made: list[Part] = []
        for part in parts:
            calls = _calls_of(part)
            if not calls:
                made.append(part)
                continue
            call = calls[0]
            name = call["function"].get("name", "")
            pieces = [call]
            if name and "tool_id_first" in miss:
                head = {**call, "function": {"arguments": ""}}
                pieces = [head, {"index": call["index"], "function": call["function"]}]
            if name and "tool_name_cut" in miss:
                last = pieces.pop()
                function = last["function"]
                half = {"name": name[: len(name) // 2], "arguments": ""}
                rest = {**function, "name": name[len(name) // 2 :]}
                pieces += [{**last, "function": half}]
                pieces += [{"index": call["index"], "function": rest}]
            if "tool_everywhere" in miss:
                first = first or {**call, "function": {"name": name}}
                function = {**first["function"], **call["function"]}
                pieces = [{**first, "function": function}]
            if "tool_from_one" in miss:
                pieces = [{**piece, "index": piece["index"] + 1} for piece in pieces]
            made += [_part_with(part, piece) for piece in pieces[:-1]]
            made.append(replace(_part_with(part, pieces[-1]), said=part.said))
        return made

    def _bend(self, document: Document) -> Document:
        if "choices" not in document:
            return document
        miss = self._miss
        bent = {k: v for k, v in document.items() if not (k in TOP_LEVEL and k in miss)}
        if "created_float" in miss and "created" in bent:
            bent["created"] = bent["created"] + 0.25
        if "service_tier" in miss:
            bent["service_tier"] = {"name": "on_demand"}
        if "choices_null" in miss and not bent["choices"]:
            bent["choices"] = None
        else:
            bent["choices"] = [self._choice(choice) for choice in bent["choices"]]
        return bent

    def _choice(self, choice: Document) -> Document:
        miss = self._miss
        bent = {k: v for k, v in choice.items() if not (k == "index" and k in miss)}
        if "logprobs" in miss:
            bent.pop("logprobs", None)
        if bent["finish_reason"] is None:
            if "finish_reason_empty" in miss:
                bent["finish_reason"] = ""
        elif "finish_reason_null_at_end" in miss:
            bent["finish_reason"] = None
        elif self._finish is not None:
            bent["finish_reason"] = self._finish
        if "finish_reason" in miss:
            del bent["finish_reason"]
        for key in ("delta", "message"):
            if key in bent:
                bent[key] = self._message(bent[key])
        return bent

    def _message(self, message: Document) -> Document:
        miss = self._miss
        bent = dict(message)
        if "role" in miss:
            bent.pop("role", None)
        elif "role_everywhere" in miss:
            bent["role"] = "assistant"
        if "content" in miss and not bent.get("content"):
            bent.pop("content", None)
        if "reasoning" in miss and "reasoning_content" in bent:
            bent["reasoning"] = bent.pop("reasoning_content")
        if "tool_calls" in bent:
            bent["tool_calls"] = [self._call(call) for call in bent["tool_calls"]]
        return bent

    def _call(self, call: Document) -> Document:
        left_out = [key for key in ("type", "id", "index") if f"tool_{key}" in self._miss]
        bent = {key: value for key, value in call.items() if key not in left_out}
        if "arguments_object" in self._miss:
            function = dict(bent["function"])
            function["arguments"] = _parsed(function["arguments"])
            bent["function"] = function
        return bent


def _calls_of(part: Part) -> list[Document]:
    return [
        call
        for choice in part.events[0].get("choices", [])
        for call in choice.get("delta", {}).get("tool_calls", [])
    ]


def _part_with(part: Part, call: Document) -> Part:
    """The same part with another tool call, and with nothing said."""
    choice = part.events[0]["choices"][0]
    choice = {**choice, "delta": {**choice["delta"], "tool_calls": [call]}}
    return replace(part, events=[{**part.events[0], "choices": [choice]}], said="")


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return {}
