"""scripts/release.py: the image holds the module as gateways look for it, and what does not fit together is noticed."""

from __future__ import annotations

import importlib.util
import io
import json
import pathlib
import tarfile
from types import ModuleType
from typing import Any

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "release.py"
MODULE = b"\0asm\1\0\0\0 and more"


@pytest.fixture
def release(tmp_path: pathlib.Path) -> ModuleType:
    """The script, for a project of its own with version 1.2.3."""
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "shunt.wasm").write_bytes(MODULE)
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "shunt"\nversion = "1.2.3"\n')
    (tmp_path / "Cargo.lock").write_text('[[package]]\nname = "shunt"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-11-30\n\n- It is new.\n\n## 1.2.2 - 2026-11-01\n\n- Old.\n")
    changed: Any = module
    changed.ROOT, changed.MODULE, changed.RELEASE = tmp_path, tmp_path / "dist" / "shunt.wasm", tmp_path / "dist" / "release"
    return module


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        return {entry.name: files.extractfile(entry).read() for entry in files}  # type: ignore[union-attr]


def test_the_image_is_the_compat_variant_with_the_module_in_its_only_layer(release: ModuleType) -> None:
    files = unpacked(release.image(MODULE, "1.2.3"))
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
    assert manifest["annotations"]["module.wasm.image/variant"] == "compat"
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    with tarfile.open(fileobj=io.BytesIO(files["blobs/" + layer["digest"].replace(":", "/")]), mode="r:gz") as content:
        assert content.getnames() == ["plugin.wasm"]
    assert release.module_of(release.image(MODULE, "1.2.3")) == MODULE


def test_the_same_module_gives_the_same_image(release: ModuleType) -> None:
    assert release.image(MODULE, "1.2.3") == release.image(MODULE, "1.2.3")
    assert release.image(MODULE, "1.2.3") != release.image(MODULE + b".", "1.2.3")


def test_an_image_whose_blob_is_not_what_its_digest_says_is_refused(release: ModuleType) -> None:
    image = release.image(MODULE, "1.2.3")
    with pytest.raises(release.Broken, match="holds something else"):
        release.module_of(image.replace(b'"compat"', b'"compot"'))


def test_what_was_packed_holds_together(release: ModuleType) -> None:
    release.pack()
    release.check_files()
    assert sorted(path.name for path in release.RELEASE.iterdir()) == ["SHA256SUMS", "shunt.oci.tar", "shunt.wasm"]


@pytest.mark.parametrize("file", ["shunt.wasm", "shunt.oci.tar", "SHA256SUMS"])
def test_a_file_that_changed_after_packing_is_noticed(release: ModuleType, file: str) -> None:
    release.pack()
    path = release.RELEASE / file
    content = path.read_bytes()
    path.write_bytes(content[:1].replace(content[:1], b"!") + content[1:])
    with pytest.raises(release.Broken):
        release.check_files()


def test_a_file_that_the_checksums_do_not_name_is_noticed(release: ModuleType) -> None:
    release.pack()
    (release.RELEASE / "shunt.cdx.json").write_text("{}")
    with pytest.raises(release.Broken, match="does not have shunt.cdx.json"):
        release.check_files()


def test_the_notes_are_the_section_of_the_version(release: ModuleType) -> None:
    assert release.notes() == "- It is new.\n"


def test_another_version_in_the_tag_or_the_lock_file_is_noticed(release: ModuleType) -> None:
    assert release.check_version("v1.2.3") == "1.2.3"
    with pytest.raises(release.Broken, match="the tag is v1.2.4"):
        release.check_version("v1.2.4")
    (release.ROOT / "Cargo.lock").write_text('name = "shunt"\nversion = "1.2.2"\n')
    with pytest.raises(release.Broken, match="Cargo.lock has version 1.2.2"):
        release.check_version(None)


def test_a_version_without_a_section_in_the_changelog_is_noticed(release: ModuleType) -> None:
    (release.ROOT / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- It is new.\n")
    with pytest.raises(release.Broken, match=r"CHANGELOG\.md"):
        release.check_version(None)
