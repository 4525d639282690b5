#!/usr/bin/env python3
"""Prints the setting with which cargo builds the same bytes wherever it runs: `cargo build --config "$(scripts/remap-paths.py TARGET)"`.

The compiler writes the paths of source files into the module (a panic names its place), and those of the dependencies are absolute:
they hold cargo's home. Each is replaced by a name that is the same on every machine. `trim-paths` of cargo's profiles would do this,
and is not stable in the compiler of rust-toolchain.toml. A path that is known only here cannot stand in .cargo/config.toml; given by
`--config`, the flags are added to those of that file, where RUSTFLAGS would replace them.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def remapped(target: str) -> dict[str, str]:
    """What each folder is called in the module. Where several match a path, the compiler takes the last."""
    cargo, rustc = os.environ.get("CARGO", "cargo"), os.environ.get("RUSTC", "rustc")
    metadata = json.loads(run(cargo, "metadata", "--format-version=1", "--locked", "--filter-platform", target))
    names = {}
    for package in metadata["packages"]:
        # The folder above holds the name of the registry or mirror, and a checkout's or vendored crate's place.
        if package["source"] is not None:
            names[str(pathlib.Path(package["manifest_path"]).parent.parent)] = "/dependencies"
    names[str(ROOT)] = "/shunt"
    names[metadata["target_directory"]] = "/shunt/target"
    # With the component rust-src the compiler names the standard library's files there, and without it as they are named here.
    commit = next(line.split()[1] for line in run(rustc, "--version", "--verbose").splitlines() if line.startswith("commit-hash:"))
    names[str(pathlib.Path(run(rustc, "--print", "sysroot").strip(), "lib/rustlib/src/rust"))] = f"/rustc/{commit}"
    return names


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: remap-paths.py TARGET")
    flags = [f"--remap-path-prefix={path}={name}" for path, name in remapped(sys.argv[1]).items()]
    # A JSON list of strings is one in TOML as well.
    print(f"target.{sys.argv[1]}.rustflags={json.dumps(flags, ensure_ascii=False)}")


if __name__ == "__main__":
    main()
