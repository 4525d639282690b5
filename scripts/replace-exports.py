#!/usr/bin/env python3
"""Copies a .wasm with some of its exports replaced: `replace-exports.py IN OUT NAME=OWN...`.

`OWN` is exported as `NAME`, and what was `NAME` no more. The SDK exports every callback of the ABI, and its answer to a
call of the filter's own (`proxy_on_http_call_response`) traps for each call that was not made through the SDK, whose
functions trap on every status that they do not expect. Rust cannot take an export of a dependency back, so the Makefile
does it here. Without this step the filter works on Envoy; on APISIX the first call would end the worker.
"""

import sys

EXPORT_SECTION = 7


def read_leb(data: bytes, at: int) -> "tuple[int, int]":
    """An unsigned LEB128 number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def replaced(section: bytes, names: "dict[str, str]") -> bytes:
    """An export section with some names given to others; takes those that it found out of `names`. An entry is a name, a
    kind (one byte) and an index."""
    count, at = read_leb(section, 0)
    renamed = {own: name for name, own in names.items()}
    kept = []
    for _ in range(count):
        length, at = read_leb(section, at)
        name = section[at : at + length].decode()
        what = at + length
        _, at = read_leb(section, what + 1)
        if name in renamed.values():
            continue
        if name in renamed:
            name = renamed[name]
            del names[name]
        kept.append(leb(len(name)) + name.encode() + section[what:at])
    return leb(len(kept)) + b"".join(kept)


def main() -> None:
    source, target, *pairs = sys.argv[1:]
    with open(source, "rb") as file:
        data = file.read()
    names = dict(pair.split("=", 1) for pair in pairs)
    out = bytearray(data[:8])
    at = 8
    while at < len(data):
        kind = data[at]
        size, body = read_leb(data, at + 1)
        section = data[body : body + size]
        if kind == EXPORT_SECTION:
            section = replaced(section, names)
        out += bytes([kind]) + leb(len(section)) + section
        at = body + size
    if names:
        sys.exit(f"{source} does not export {', '.join(names.values())}")
    with open(target, "wb") as file:
        file.write(out)


if __name__ == "__main__":
    main()
