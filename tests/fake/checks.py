"""Requests that a vendor would not accept, and the words in which it says so.

What is checked always: no key of a JSON object may occur twice, since nobody
can say which of the two a vendor would take. The Messages API and the
references of the Responses API are checked as strictly as their vendors do;
for the rest of OpenAI's and DeepSeek's API that has to be asked for
(``--strict``), because most tests care little for what they send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional, TypeGuard, Union

from actions import Headers
from documents import (
    ANTHROPIC,
    CHAT,
    COMPLETION,
    DEEPSEEK,
    MESSAGES,
    OPENAI,
    RESPONSES,
    Document,
    kind_of,
)


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is not accepted; empty fields are left to the vendor's habit."""

    status: int
    message: str
    type: Optional[str] = None
    code: Optional[str] = None
    param: Optional[str] = None


class Repeated(ValueError):
    """A JSON object has a key twice."""


class NoJson(ValueError):
    """A body that is not JSON."""


Parsed = Union[Any, NoJson, Repeated]


def parse(body: bytes) -> Parsed:
    """A request body, or what is wrong with it."""
    try:
        return json.loads(body, object_pairs_hook=_object)
    except Repeated as error:
        return error
    except (ValueError, RecursionError):
        return NoJson("The request body is not valid JSON.")


def _object(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Repeated(f"the key {twice!r} occurs twice in one JSON object")
    return document


@dataclass(frozen=True)
class Request:
    """What there is to be checked."""

    dialect: str
    strict: bool
    path: str
    headers: Headers
    body: Parsed
    #: Tokens of each answer that a request may continue, by id.
    issued: Mapping[str, int]


def refusal(request: Request) -> Optional[Refusal]:
    """Why the vendor would not accept a request, or None if it would."""
    try:
        _check(request)
    except Refusal as refused:
        return refused
    return None


def _check(request: Request) -> None:
    kind = kind_of(request.path)
    if request.dialect == ANTHROPIC:
        if kind != MESSAGES:
            raise Refusal(404, "Not Found")
        check_anthropic_headers(request.headers)
    document = request.body
    if isinstance(document, NoJson) and not request.strict and kind != MESSAGES:
        return
    if isinstance(document, (Repeated, NoJson)):
        raise Refusal(400, str(document), "invalid_request_error")
    if kind == MESSAGES:
        headers = {name.lower(): value for name, value in request.headers}
        check_messages(document)
        if headers.get("anthropic-version") == NEW_VERSION:
            check_new_messages(document)
        return
    if not isinstance(document, dict):
        document = {}
    if kind == RESPONSES:
        _check_previous(document, request.issued)
        _check_thoughts(document, request.issued)
    if request.strict and request.dialect == OPENAI:
        check_openai(document, kind)
    if request.strict and request.dialect == DEEPSEEK and kind == CHAT:
        check_deepseek(document)


def _check_previous(document: Document, issued: Mapping[str, int]) -> None:
    previous = document.get("previous_response_id")
    if previous is None or (isinstance(previous, str) and previous in issued):
        return
    raise Refusal(
        400,
        f"Previous response with id '{previous}' not found.",
        "invalid_request_error",
        "previous_response_not_found",
        "previous_response_id",
    )


def _check_thoughts(document: Document, issued: Mapping[str, int]) -> None:
    """Reasoning that is encrypted or stored is read by the vendor that made it alone."""
    items = document.get("input")
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict) or item.get("type") != "reasoning" or item.get("content"):
            continue
        encrypted, id_ = item.get("encrypted_content"), item.get("id")
        if encrypted and encrypted not in issued:
            words = f"The encrypted content {encrypted[:4]}... could not be verified."
            raise Refusal(400, words, "invalid_request_error", "invalid_encrypted_content")
        if not encrypted and id_ is not None and id_ not in issued:
            raise Refusal(404, f"Item with id '{id_}' not found.", "invalid_request_error", param="input")


# OpenAI. ---------------------------------------------------------------------

_SAMPLING = {
    "frequency_penalty", "logit_bias", "logprobs", "n", "presence_penalty", "seed",
    "stop", "stream", "stream_options", "temperature", "top_p", "user", "model",
}  # fmt: skip
OPENAI_FIELDS = {
    CHAT: _SAMPLING | {
        "audio", "function_call", "functions", "max_completion_tokens", "max_tokens",
        "messages", "metadata", "modalities", "parallel_tool_calls", "prediction",
        "prompt_cache_key", "prompt_cache_retention", "reasoning_effort",
        "response_format", "safety_identifier", "service_tier", "store", "tool_choice",
        "tools", "top_logprobs", "verbosity", "web_search_options",
    },
    COMPLETION: _SAMPLING | {"best_of", "echo", "max_tokens", "prompt", "suffix"},
    RESPONSES: {
        "background", "conversation", "include", "input", "instructions",
        "max_output_tokens", "max_tool_calls", "metadata", "model",
        "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key",
        "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier",
        "store", "stream", "stream_options", "temperature", "text", "tool_choice",
        "tools", "top_logprobs", "top_p", "truncation", "user",
    },
}  # fmt: skip


def check_openai(document: Document, kind: str) -> None:
    """Unknown fields, and stream options where they do not belong."""
    known = OPENAI_FIELDS.get(kind)
    if known is None:
        return
    for key in document:
        if key not in known:
            _refuse_openai(f"Unknown parameter: '{key}'.", key, "unknown_parameter")
    options = document.get("stream_options")
    if options is None:
        return
    if document.get("stream") is not True:
        _refuse_openai(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )
    if not isinstance(options, dict):
        _refuse_openai(
            "Invalid type for 'stream_options': expected an object.",
            "stream_options",
            "invalid_type",
        )
    allowed = {"include_obfuscation"}
    if kind != RESPONSES:  # which always reports its usage
        allowed.add("include_usage")
    for key, value in options.items():
        where = f"stream_options.{key}"
        if key not in allowed:
            _refuse_openai(f"Unknown parameter: '{where}'.", where, "unknown_parameter")
        if not isinstance(value, bool):
            message = f"Invalid type for '{where}': expected a boolean."
            _refuse_openai(message, where, "invalid_type")


def _refuse_openai(message: str, param: str, code: Optional[str] = None) -> None:
    raise Refusal(400, message, "invalid_request_error", code, param)


# DeepSeek. -------------------------------------------------------------------

DEEPSEEK_ROLES = ("system", "user", "assistant", "tool")


def check_deepseek(document: Document) -> None:
    """The rules that DeepSeek documents or is known for.

    It ignores what it does not know, ``max_completion_tokens`` among it.
    """
    max_tokens = document.get("max_tokens")
    if max_tokens is not None and not (_is_int(max_tokens) and max_tokens >= 1):
        _refuse_deepseek(
            "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"
        )
    messages = _dicts(document.get("messages"))
    for i, message in enumerate(messages):
        role = message.get("role")
        if role not in DEEPSEEK_ROLES:
            expected = ", ".join(f"`{one}`" for one in DEEPSEEK_ROLES)
            _refuse_deepseek(
                "Failed to deserialize the JSON body into the target type: "
                f"messages[{i}].role: unknown variant `{role}`, "
                f"expected one of {expected}"
            )
    thinking = document.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "disabled":
        return
    for message in messages:
        if message.get("tool_calls") and "reasoning_content" not in message:
            _refuse_deepseek(
                "The `reasoning_content` in the thinking mode must be passed back "
                "to the API."
            )


def _refuse_deepseek(message: str) -> None:
    raise Refusal(400, message, "invalid_request_error", "invalid_request_error")


# Anthropic. ------------------------------------------------------------------

OLD_VERSION, NEW_VERSION = "2023-06-01", "2026-10-21"
ANTHROPIC_VERSIONS = ("2023-01-01", OLD_VERSION, NEW_VERSION)
MESSAGES_FIELDS = {
    "cache_control", "container", "context_management", "diagnostics",
    "inference_geo", "max_tokens", "mcp_servers", "messages", "metadata", "model",
    "output_config", "service_tier", "speed", "stop_sequences", "stream", "system",
    "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
}  # fmt: skip
BLOCK_TYPES = (
    "text", "image", "document", "search_result", "thinking", "redacted_thinking",
    "tool_use", "tool_result", "server_tool_use", "web_search_tool_result",
    "container_upload",
)  # fmt: skip
BLOCK_FIELDS = {
    "text": {"type", "text", "cache_control", "citations"},
    "image": {"type", "source", "cache_control"},
    "thinking": {"type", "thinking", "signature"},
    "tool_use": {"type", "id", "name", "input", "cache_control", "caller"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
}
TOOL_CHOICES = ("auto", "any", "tool", "none")


def check_anthropic_headers(headers: Headers) -> None:
    """The key where Anthropic wants it, and the version of the API."""
    given = {name.lower(): value for name, value in headers}
    if not given.get("x-api-key"):
        if "authorization" in given:
            raise Refusal(401, "Invalid bearer token")
        raise Refusal(401, "x-api-key header is required")
    version = given.get("anthropic-version")
    if not version:
        raise Refusal(400, "anthropic-version: header is required")
    if version not in ANTHROPIC_VERSIONS:
        raise Refusal(400, f'anthropic-version: "{version}" is not a valid version')


def check_messages(document: Any) -> None:
    """The body of a request to the Messages API."""
    if not isinstance(document, dict):
        raise Refusal(400, "The request body is not a JSON object.")
    for key in ("model", "max_tokens", "messages"):
        if key not in document:
            raise Refusal(400, f"{key}: Field required")
    _only(document, MESSAGES_FIELDS, "")
    if not isinstance(document["model"], str):
        raise Refusal(400, "model: Input should be a valid string")
    max_tokens = document["max_tokens"]
    if not _is_int(max_tokens):
        raise Refusal(400, "max_tokens: Input should be a valid integer")
    if max_tokens < 1:
        raise Refusal(400, "max_tokens: Input should be greater than or equal to 1")
    _check_options(document, max_tokens)
    _check_system(document.get("system"))
    _check_tools(document)
    messages = document["messages"]
    if not isinstance(messages, list):
        raise Refusal(400, "messages: Input should be a valid list")
    if not messages:
        raise Refusal(400, "messages: at least one message is required")
    for i, message in enumerate(messages):
        _check_message(message, i)
    if messages[0]["role"] != "user":
        raise Refusal(400, 'messages: first message must use the "user" role')
    for i, message in enumerate(messages):
        if _is_empty(message["content"]) and not (
            i == len(messages) - 1 and message["role"] == "assistant"
        ):
            raise Refusal(
                400,
                f"messages.{i}: all messages must have non-empty content except for "
                "the optional final assistant message",
            )
    _check_tool_results(messages)


def check_new_messages(document: Document) -> None:
    """What the version of 2026-10-21 does not accept any more."""
    for key in ("temperature", "top_p", "top_k"):
        if key in document:
            raise Refusal(400, f"{key}: Extra inputs are not permitted")
    for i, message in enumerate(document["messages"]):
        for j, block in enumerate(_dicts(message["content"])):
            where = f"messages.{i}.content.{j}"
            if message["role"] == "assistant" and block["type"] == "document":
                raise Refusal(400, f"{where}: unexpected document block")
            if message["role"] == "user" and block["type"] == "text":
                if block.get("citations"):
                    raise Refusal(400, f"{where}.text.citations: unexpected citations")


def _check_options(document: Document, max_tokens: int) -> None:
    if not isinstance(document.get("stream", False), bool):
        raise Refusal(400, "stream: Input should be a valid boolean")
    for key in ("temperature", "top_p"):
        value = document.get(key)
        if value is not None and not (_is_number(value) and 0 <= value <= 1):
            raise Refusal(400, f"{key}: range: 0..1")
    stops = document.get("stop_sequences")
    if stops is not None:
        if not isinstance(stops, list) or not all(isinstance(s, str) for s in stops):
            raise Refusal(400, "stop_sequences: Input should be a valid list")
        if not all(stop.strip() for stop in stops):
            raise Refusal(
                400,
                "stop_sequences: each stop sequence must contain non-whitespace",
            )
    metadata = document.get("metadata")
    if metadata is not None:
        _only(_dict(metadata, "metadata"), {"user_id"}, "metadata.")
    thinking = document.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if not _is_int(budget):
            raise Refusal(400, "thinking.enabled.budget_tokens: Field required")
        if budget < 1024:
            raise Refusal(
                400,
                "thinking.enabled.budget_tokens: Input should be greater than or "
                "equal to 1024",
            )
        if budget >= max_tokens:
            raise Refusal(
                400, "`max_tokens` must be greater than `thinking.budget_tokens`."
            )


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise Refusal(400, "system: Input should be a valid string")
    for i, block in enumerate(system):
        if _dict(block, f"system.{i}").get("type") != "text":
            raise Refusal(400, f"system.{i}.type: Input should be 'text'")
        if not block.get("text"):
            raise Refusal(400, "system: text content blocks must be non-empty")


def _check_tools(document: Document) -> None:
    tools = document.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise Refusal(400, "tools: Input should be a valid list")
    for i, tool in enumerate(tools or []):
        kind = _dict(tool, f"tools.{i}").get("type", "custom")
        if kind == "function":
            raise Refusal(
                400,
                f"tools.{i}: Input tag 'function' found using 'type' does not match "
                "any of the expected tags",
            )
        if kind != "custom":
            continue  # one of Anthropic's own
        for key in ("name", "input_schema"):
            if key not in tool:
                raise Refusal(400, f"tools.{i}.custom.{key}: Field required")
        if not isinstance(tool["input_schema"], dict):
            where = f"tools.{i}.custom.input_schema"
            raise Refusal(400, f"{where}: Input should be a valid dictionary")
        if "type" not in tool["input_schema"]:
            raise Refusal(400, f"tools.{i}.custom.input_schema.type: Field required")
        for key in ("function", "parameters", "strict_mode"):
            if key in tool:
                where = f"tools.{i}.custom.{key}"
                raise Refusal(400, f"{where}: Extra inputs are not permitted")
    choice = document.get("tool_choice")
    if choice is None:
        return
    if _dict(choice, "tool_choice").get("type") not in TOOL_CHOICES:
        raise Refusal(
            400,
            f"tool_choice: Input tag {choice.get('type')!r} found using 'type' does "
            f"not match any of the expected tags: {_listed(TOOL_CHOICES)}",
        )
    if choice["type"] == "tool" and "name" not in choice:
        raise Refusal(400, "tool_choice.tool.name: Field required")


def _check_message(message: Any, i: int) -> None:
    where = f"messages.{i}"
    for key in ("role", "content"):
        if key not in _dict(message, where):
            raise Refusal(400, f"{where}.{key}: Field required")
    role, content = message["role"], message["content"]
    if role == "system":
        raise Refusal(
            400,
            'messages: Unexpected role "system". The Messages API accepts a top-level '
            '`system` parameter, not "system" as an input message role.',
        )
    if role not in ("user", "assistant"):
        message = f"{where}.role: Input should be 'user' or 'assistant'"
        raise Refusal(400, message)
    _only(message, {"role", "content"}, f"{where}.")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise Refusal(400, f"{where}.content: Input should be a valid list")
    for j, block in enumerate(content):
        _check_block(block, f"{where}.content.{j}")


def _check_block(block: Any, where: str) -> None:
    kind = _dict(block, where).get("type")
    if kind is None:
        raise Refusal(400, f"{where}.type: Field required")
    if kind not in BLOCK_TYPES and not str(kind).endswith("_tool_result"):
        raise Refusal(
            400,
            f"{where}: Input tag {kind!r} found using 'type' does not match any of "
            f"the expected tags: {_listed(BLOCK_TYPES)}",
        )
    if kind in BLOCK_FIELDS:
        _only(block, BLOCK_FIELDS[kind], f"{where}.{kind}.")
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise Refusal(400, f"{where}.text.text: Field required")
        if not block["text"]:
            raise Refusal(400, "messages: text content blocks must be non-empty")
        if not block["text"].strip():
            message = "messages: text content blocks must contain non-whitespace text"
            raise Refusal(400, message)
    if kind == "tool_use":
        for key in ("id", "name", "input"):
            if key not in block:
                raise Refusal(400, f"{where}.tool_use.{key}: Field required")
        _dict(block["input"], f"{where}.tool_use.input")
    if kind == "tool_result":
        if not isinstance(block.get("tool_use_id"), str):
            raise Refusal(400, f"{where}.tool_result.tool_use_id: Field required")
        inner = block.get("content")
        for j, one in enumerate(inner if isinstance(inner, list) else []):
            _check_block(one, f"{where}.tool_result.content.{j}")


def _check_tool_results(messages: list[Document]) -> None:
    """Every use of a tool has its result in the next message, and the reverse."""
    called: list[str] = []
    for i, message in enumerate(messages):
        blocks = _dicts(message["content"])
        answered = []
        for j, block in enumerate(blocks):
            if block.get("type") != "tool_result":
                continue
            answered.append(block["tool_use_id"])
            if block["tool_use_id"] not in called or message["role"] != "user":
                raise Refusal(
                    400,
                    f"messages.{i}.content.{j}: unexpected `tool_use_id` found in "
                    f"`tool_result` blocks: {block['tool_use_id']}. Each `tool_result` "
                    "block must have a corresponding `tool_use` block in the previous "
                    "message.",
                )
        missing = [one for one in called if one not in answered]
        if missing:
            raise Refusal(
                400,
                f"messages.{i - 1}: `tool_use` ids were found without `tool_result` "
                f"blocks immediately after: {', '.join(missing)}. Each `tool_use` "
                "block must have a corresponding `tool_result` block in the next "
                "message.",
            )
        uses = [block for block in blocks if block.get("type") == "tool_use"]
        called = [str(block["id"]) for block in uses]
        if len(set(called)) != len(called):
            raise Refusal(400, "messages: `tool_use` ids must be unique")
    if called:
        raise Refusal(
            400,
            f"messages.{len(messages) - 1}: `tool_use` ids were found without "
            f"`tool_result` blocks immediately after: {', '.join(called)}. Each "
            "`tool_use` block must have a corresponding `tool_result` block in the "
            "next message.",
        )


def _is_empty(content: Any) -> bool:
    return not (content.strip() if isinstance(content, str) else content)


def _only(document: Document, known: Iterable[str], where: str) -> None:
    for key in document:
        if key not in known:
            raise Refusal(400, f"{where}{key}: Extra inputs are not permitted")


def _dict(value: Any, where: str) -> Document:
    if not isinstance(value, dict):
        raise Refusal(400, f"{where}: Input should be a valid dictionary")
    return value


def _dicts(value: Any) -> list[Document]:
    listed = value if isinstance(value, list) else []
    return [one for one in listed if isinstance(one, dict)]


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
