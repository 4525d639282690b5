#!/usr/bin/env python3
"""What a release consists of, made from dist/shunt.wasm, and what can be proved of it before there is one.

    release.py pack     writes dist/release/: the module, its OCI image as an archive, and SHA256SUMS of all that is there
    release.py notes    prints the version's section of CHANGELOG.md
    release.py check    builds the module again in another folder and compares the bytes, reads the image as a gateway does,
                        verifies the checksums, and compares the version in Cargo.toml, Cargo.lock, CHANGELOG.md and the tag

The image is the *compat* variant of the Wasm image specification (github.com/solo-io/wasm, spec/spec-compat.md): one layer of a
usual container image that holds `plugin.wasm`. Istio (`oci://` in a WasmPlugin) and Envoy Gateway (`code.type: Image` in an
EnvoyExtensionPolicy) take it. It is written here rather than by `docker build`, which dates what it packs: the same module gives the
same digest, as long as zlib packs it the same way.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULE = ROOT / "dist" / "shunt.wasm"
RELEASE = ROOT / "dist" / "release"
SUMS = "SHA256SUMS"

# https://github.com/opencontainers/image-spec
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


class Broken(Exception):
    """Something that a release must hold does not hold."""


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


# --- The version.


def found(pattern: str, file: str) -> str:
    match = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise Broken(f"{file} has nothing like {pattern!r}")
    return match[1]


def version() -> str:
    """The package's, which is the first that Cargo.toml names."""
    return found(r'^version = "([^"]+)"$', "Cargo.toml")


def notes() -> str:
    """The version's section of CHANGELOG.md, without its heading."""
    heading = rf"^## {re.escape(version())} - \d{{4}}-\d\d-\d\d\n"
    return found(heading + r"([\s\S]*?)(?=^## |\Z)", "CHANGELOG.md").strip() + "\n"


def check_version(tag: str | None) -> str:
    ours = version()
    locked = found(r'^name = "shunt"\nversion = "([^"]+)"$', "Cargo.lock")
    check(locked == ours, f"Cargo.lock has version {locked}, Cargo.toml {ours}")
    check(len(notes()) > 1, f"CHANGELOG.md says nothing of {ours}")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    check(changes.index("## Unreleased") < changes.index(f"## {ours} - "), "CHANGELOG.md has no section Unreleased above the releases")
    if tag:
        check(tag == f"v{ours}", f"the tag is {tag}, and Cargo.toml has version {ours}")
    return ours


# --- The image.


def tar(files: list[tuple[str, bytes]]) -> bytes:
    """An archive that depends on nothing but what is in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def image(module: bytes, tag: str) -> bytes:
    """The module as an OCI image layout in a tar, which skopeo, podman and crane call an OCI archive."""
    layer = tar([("plugin.wasm", module)])
    packed = gzip.compress(layer, mtime=0)
    blobs = {}

    def blob(media_type: str, content: bytes) -> dict[str, object]:
        blobs[sha256(content)] = content
        return {"mediaType": media_type, "digest": f"sha256:{sha256(content)}", "size": len(content)}

    config = canonical(
        {
            "architecture": "wasm",
            "os": "wasip1",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}"]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": blob(CONFIG_TYPE, config),
        "layers": [blob(LAYER_TYPE, packed)],
        "annotations": {
            "module.wasm.image/variant": "compat",
            "org.opencontainers.image.title": "shunt",
            "org.opencontainers.image.version": tag,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    }
    entry = blob(MANIFEST_TYPE, canonical(manifest))
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {"org.opencontainers.image.ref.name": tag}}]}
    files = [("oci-layout", canonical({"imageLayoutVersion": "1.0.0"})), ("index.json", canonical(index))]
    return tar(files + [(f"blobs/sha256/{digest}", content) for digest, content in sorted(blobs.items())])


def module_of(archive: bytes) -> bytes:
    """The module in an image, found as Istio and Envoy Gateway find it (their `imagefetcher.go`): `plugin.wasm` in the last layer,
    whose media type must be the usual one. Every blob is held against its digest."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:

        def content(name: str) -> bytes:
            file = files.extractfile(name)
            if file is None:
                raise Broken(f"the image's {name} is not a file")
            return file.read()

        def blob(entry: dict[str, Any]) -> bytes:
            taken = content("blobs/" + entry["digest"].replace(":", "/"))
            check(f"sha256:{sha256(taken)}" == entry["digest"], f"the image's {entry['digest']} holds something else")
            check(len(taken) == entry["size"], f"the image's {entry['digest']} is of another size")
            return taken

        check(json.loads(content("oci-layout")) == {"imageLayoutVersion": "1.0.0"}, "the image's layout is of another version")
        (entry,) = json.loads(content("index.json"))["manifests"]
        manifest = json.loads(blob(entry))
        layer = manifest["layers"][-1]
        check(layer["mediaType"] == LAYER_TYPE, f"the image's layer is {layer['mediaType']}")
        unpacked = gzip.decompress(blob(layer))
        config = json.loads(blob(manifest["config"]))
        check(config["rootfs"]["diff_ids"][-1] == f"sha256:{sha256(unpacked)}", "the image's configuration names another layer")
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as files:
        plugin = files.extractfile("plugin.wasm")
        if plugin is None:
            raise Broken("the image has no plugin.wasm")
        return plugin.read()


# --- The files of a release.


def pack() -> None:
    module = MODULE.read_bytes()
    RELEASE.mkdir(parents=True, exist_ok=True)
    (RELEASE / "shunt.wasm").write_bytes(module)
    (RELEASE / "shunt.oci.tar").write_bytes(image(module, version()))
    # What else is there, the bill of materials, was put there before.
    files = sorted(path for path in RELEASE.iterdir() if path.name != SUMS)
    (RELEASE / SUMS).write_text("".join(f"{sha256(path.read_bytes())}  {path.name}\n" for path in files), encoding="ascii")
    for path in files:
        print(f"{sha256(path.read_bytes())}  {path.relative_to(ROOT)}")


def check_files() -> None:
    """That dist/release/ holds together: made again it is the same, and nothing is there that SHA256SUMS does not name."""
    module = MODULE.read_bytes()
    check((RELEASE / "shunt.wasm").read_bytes() == module, "dist/release/shunt.wasm is not dist/shunt.wasm: pack it again")
    archive = (RELEASE / "shunt.oci.tar").read_bytes()
    check(archive == image(module, version()), "the image made again is another: pack it again")
    check(module_of(archive) == module, "the image holds another module")
    lines = (RELEASE / SUMS).read_text(encoding="ascii").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for path in RELEASE.iterdir():
        if path.name != SUMS:
            check(sums.pop(path.name, None) == sha256(path.read_bytes()), f"{SUMS} does not have {path.name} as it is")
    check(not sums, f"{SUMS} names what is not there: {', '.join(sums)}")


def built_elsewhere(folder: pathlib.Path) -> bytes:
    """The module, built from a copy of this tree in `folder`, with cargo's home and its output in other places too."""
    copy, home = folder / "another tree", folder / "cargo"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        source, target = ROOT / name, copy / name
        # A file that was deleted and is not committed yet is still listed.
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
    home.mkdir()
    # Linked, so that nothing is downloaded again: cargo knows the files by the path that it came by.
    real = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    for name in ("registry", "config.toml"):
        if (real / name).exists():
            (home / name).symlink_to(real / name)
    # Programs come from the same place as before: only cargo's files move.
    surroundings = {**os.environ, "CARGO_HOME": str(home), "CARGO_TARGET_DIR": str(folder / "output")}
    # Within `make`, whose settings are not those of the other tree.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        surroundings.pop(name, None)
    subprocess.run(["make", "--no-print-directory", "build"], cwd=copy, env=surroundings, check=True)
    return (copy / "dist" / "shunt.wasm").read_bytes()


def check_build() -> None:
    module = MODULE.read_bytes()
    for path in (ROOT, pathlib.Path.home()):
        check(os.fsencode(path) + b"/" not in module, f"the module holds the path {path}")
    with tempfile.TemporaryDirectory(prefix="shunt-release-") as folder:
        again = built_elsewhere(pathlib.Path(folder))
    check(again == module, f"built in another folder the module is another: {sha256(module)} here, {sha256(again)} there")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["pack", "notes", "check"])
    parser.add_argument("--tag", help="the tag of the release, to compare the version with")
    arguments = parser.parse_args()
    try:
        if arguments.command == "notes":
            sys.stdout.write(notes())
        elif arguments.command == "pack":
            pack()
        else:
            print(f"version {check_version(arguments.tag)} is the same everywhere")
            check_files()
            print("dist/release/ holds together, and its image holds the module")
            check_build()
            print(f"the module is the same from another folder, another cargo's home and another target folder: {sha256(MODULE.read_bytes())}")
    except (Broken, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"release.py: {error}")


if __name__ == "__main__":
    main()
