"""What a vendor's model does not take: conversations that it answers with 400.

Set per test with ``POST /lacks``; a reset takes everything again.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Optional

from checks import Refusal
from documents import Document
from tokenizer import Count

Messages = list[Document]


def _parts(messages: Messages) -> set[str]:
    contents = [message.get("content") for message in messages]
    lists = [content for content in contents if isinstance(content, list)]
    return {str(part.get("type")) for parts in lists for part in parts if isinstance(part, dict)}


def _format(body: Document) -> Optional[str]:
    found = body.get("response_format")
    return found.get("type") if isinstance(found, dict) else None


def _calls(message: Document) -> bool:
    return bool(message.get("tool_calls"))


def _thinks(body: Document) -> bool:
    thinking = body.get("thinking")
    return not (isinstance(thinking, dict) and thinking.get("type") == "disabled")


def _all_calls(messages: Messages) -> list[Document]:
    return [call for one in messages for call in one.get("tool_calls") or []]


def _odd_ids(messages: Messages) -> bool:
    """Whether an id is not what Mistral takes, or a result has no call before it."""
    calls = [str(call.get("id")) for call in _all_calls(messages)]
    results = [str(one.get("tool_call_id")) for one in messages if one.get("role") == "tool"]
    return not all(re.fullmatch("[a-zA-Z0-9]{9}", found) for found in calls + results) or not set(results) <= set(calls)


def _is_unsigned(call: Document) -> bool:
    google = (call.get("extra_content") or {}).get("google") or {}
    return not google.get("thought_signature")


#: The fields that OpenAI's schema has in messages and in calls.
MESSAGE = {"role", "content", "name", "refusal", "audio", "annotations", "tool_calls", "tool_call_id", "function_call"}
CALL = {"id", "type", "function", "custom", "index"}

Rule = Callable[[Document, Messages], bool]

#: By name: whether a request has what such a model does not take, and the vendor's words.
RULES: dict[str, tuple[Rule, str]] = {
    "images": (
        lambda body, messages: bool({"image_url", "input_image"} & _parts(messages)),
        "unknown variant `image_url`, expected `text`",
    ),
    "audio": (
        lambda body, messages: "input_audio" in _parts(messages) or "audio" in (body.get("modalities") or []),
        "This model does not support audio.",
    ),
    "files": (lambda body, messages: "file" in _parts(messages), "This model does not support file content."),
    "tools": (
        lambda body, messages: bool(body.get("tools"))
        or any(_calls(one) or one.get("role") == "tool" for one in messages),
        "This model does not support tool use.",
    ),
    "json_object": (
        lambda body, messages: _format(body) == "json_object",
        "'response_format' of type 'json_object' is not supported with this model.",
    ),
    "json_schema": (
        lambda body, messages: _format(body) == "json_schema",
        "This response_format type is unavailable now",
    ),
    "prefill": (
        lambda body, messages: bool(messages) and messages[-1].get("role") == "assistant" and not _calls(messages[-1]),
        "The last message must be a user message.",
    ),
    "developer": (
        lambda body, messages: any(one.get("role") == "developer" for one in messages),
        "messages[0].role: unknown variant `developer`",
    ),
    "reasoning": (
        lambda body, messages: any("reasoning_content" in one for one in messages),
        "property 'messages.1.assistant.reasoning_content' is unsupported",
    ),
    "thoughts": (
        lambda body, messages: any(one.keys() - MESSAGE - {"extra_content"} for one in messages)
        or bool({"thinking", "reasoning"} & _parts(messages)),
        "Extra inputs are not permitted",
    ),
    "extra_content": (
        lambda body, messages: any("extra_content" in one for one in messages)
        or any(call.keys() - CALL for call in _all_calls(messages)),
        "Extra inputs are not permitted",
    ),
    "odd_ids": (
        lambda body, messages: _odd_ids(messages),
        "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.",
    ),
    "unsigned_calls": (
        lambda body, messages: any(_calls(one) and _is_unsigned(one["tool_calls"][0]) for one in messages),
        "Function call is missing a thought_signature in functionCall parts.",
    ),
    "bare_calls": (
        lambda body, messages: _thinks(body)
        and any(_calls(one) and one.get("reasoning_content") is None for one in messages),
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
    ),
}


class Lacks:
    """What is not taken, and the longest conversation that is, in tokens."""

    def __init__(self, spec: Any = None) -> None:
        spec = {} if spec is None else spec
        if not isinstance(spec, dict) or spec.keys() - {"features", "context"}:
            raise ValueError('"features" and "context" are known')
        self.features: list[str] = spec.get("features", [])
        self.context: Optional[int] = spec.get("context")
        if unknown := set(self.features) - RULES.keys():
            raise ValueError(f"unknown features: {sorted(unknown)}; known are {sorted(RULES)}")

    def refusal(self, body: Any, prompt: str, count: Count) -> Optional[Refusal]:
        """Why the vendor would not take a request, or None if it would."""
        if not isinstance(body, dict):
            return None
        found = body.get("messages")
        messages = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        for feature in self.features:
            rule, words = RULES[feature]
            if rule(body, messages):
                return Refusal(400, words, "invalid_request_error")
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        if self.context is not None and count(prompt) + most > self.context:
            words = f"This model's maximum context length is {self.context} tokens."
            return Refusal(400, words, "invalid_request_error", "context_length_exceeded", "messages")
        return None
