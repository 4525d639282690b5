#!/usr/bin/env python3
"""Says which relative links in the project's Markdown lead nowhere: to a file that is not there, or to a heading that no page has."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?\)")
CODE = re.compile(r"^```[\s\S]*?^```|`[^`\n]*`", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?)#*$", re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The names of the headings as GitHub makes them; of two that are alike the second has `-1`."""
    found: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^```[\s\S]*?^```", "", page, flags=re.MULTILINE)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = 0
        while (f"{name}-{count}" if count else name) in found:
            count += 1
        found.add(f"{name}-{count}" if count else name)
    return found


def broken(file: pathlib.Path) -> list[str]:
    problems = []
    for link in LINK.findall(CODE.sub("", file.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (file.parent / path).resolve() if path else file
        if not target.exists():
            problems.append(f"{file.relative_to(ROOT)}: {link} is not there")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            problems.append(f"{file.relative_to(ROOT)}: {link}: the page has no such heading")
    return problems


def main() -> None:
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    problems = [problem for file in files if file.is_file() for problem in broken(file)]
    print("\n".join(problems) or f"every link of {len(files)} pages leads somewhere")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
