#!/usr/bin/env python3
"""Copies a .wasm without some of its exports: `strip-exports.py IN OUT NAME...`.

The SDK exports every callback of the ABI, and Envoy calls each one that is there, for every context. A callback that
Shunt does not use costs a call into the VM all the same: two contexts a request, about a microsecond each. Rust cannot
take an export of a dependency back, so the Makefile does it here. Without this step the filter works just as well.
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


def without(section: bytes, names: "set[str]") -> bytes:
    """An export section without some names. An entry is a name, a kind (one byte) and an index."""
    count, at = read_leb(section, 0)
    kept = []
    for _ in range(count):
        start = at
        length, at = read_leb(section, at)
        name = section[at : at + length].decode()
        _, at = read_leb(section, at + length + 1)
        if name in names:
            names.discard(name)
        else:
            kept.append(section[start:at])
    return leb(len(kept)) + b"".join(kept)


def main() -> None:
    source, target, *drop = sys.argv[1:]
    with open(source, "rb") as file:
        data = file.read()
    names = set(drop)
    out = bytearray(data[:8])
    at = 8
    while at < len(data):
        kind = data[at]
        size, body = read_leb(data, at + 1)
        section = data[body : body + size]
        if kind == EXPORT_SECTION:
            section = without(section, names)
        out += bytes([kind]) + leb(len(section)) + section
        at = body + size
    if names:
        sys.exit(f"{source} does not export {', '.join(sorted(names))}")
    with open(target, "wb") as file:
        file.write(out)


if __name__ == "__main__":
    main()
