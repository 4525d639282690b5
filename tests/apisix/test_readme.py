"""apisix/README.md, walked word by word: the commands that it gives are run, its blocks are put where it says.

`apisix` and `sudo` are commands of this test, and start the stand-in; `curl` is the real one. Only ports, `/usr/local/apisix`
and the addresses of the providers are others here, and `sk-…` is a key.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import textwrap
from typing import Any, Iterator

import pytest

from installed import Installed
from server import ROOT, WASM
from standin import wait_for

README = (ROOT / "apisix" / "README.md").read_text()
#: Commands that are not run, because nothing here could run them.
ELSEWHERE = ("docker compose", "adc ")

Json = Any


def commands() -> list[str]:
    """The blocks of commands, in their order, each line a command (or the continuation of one)."""
    found: list[str] = []
    for block in re.findall(r"(?:^    \S.*\n(?: {9}.*\n)*)+", prose(), re.MULTILINE):
        for line in textwrap.dedent(block).splitlines():
            if found and found[-1].endswith("\\"):
                found[-1] += "\n" + line
            else:
                found.append(line)
    return [line for line in found if re.match(r"[A-Z_]+=|[a-z][a-z/.-]* ", line) and not line.startswith("x-shunt")]


def prose() -> str:
    """README.md without its fenced blocks."""
    return re.sub(r"^```.*?^```\n", "", README, flags=re.DOTALL | re.MULTILINE)


def command(begin: str) -> str:
    """The only command that begins so."""
    (found,) = {line for line in commands() if line.startswith(begin)}
    return found


def block(word: str, begin: str = "") -> str:
    """The block of YAML with this word."""
    texts = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (found,) = [text for text in texts if word in text and text.lstrip().startswith(begin)]
    return found


class Reader:
    """Who has the project's folder and an APISIX, and does what README.md says."""

    def __init__(self, folder: pathlib.Path, fakes: dict[str, Any]) -> None:
        self.project = folder / "project"
        self.apisix = Installed(folder / "installed")
        # The installed APISIX has files of its own there.
        for name in ("config.yaml", "apisix.yaml"):
            (self.apisix.conf / name).write_text("")
        shutil.copytree(ROOT / "apisix", self.project / "apisix")
        (self.project / "dist").mkdir()
        shutil.copy(WASM, self.project / "dist" / "shunt.wasm")
        (self.project / "scripts").symlink_to(ROOT / "scripts")
        self.fakes = fakes
        self.point_at_fakes(self.project / "apisix" / "apisix.yaml")

    def point_at_fakes(self, path: pathlib.Path) -> None:
        """The providers are on loopback here, and speak no TLS."""
        path.write_text(self.with_fakes(path.read_text()))

    def with_fakes(self, text: str) -> str:
        hosts = {"openai": "api.openai.com", "deepseek": "api.deepseek.com", "shareai": "api.shareai.now", "anthropic": "api.anthropic.com"}
        for name, fake in self.fakes.items():
            text = text.replace(f"host: {hosts[name]}, port: 443", f"host: 127.0.0.1, port: {fake.port}")
        return text.replace("scheme: https", "scheme: http")

    def does(self, line: str) -> str:
        """Runs a command as it stands, with keys in place of `sk-…`."""
        text = re.sub(r"\b([A-Z]+)_API_KEY=sk-…", lambda found: f"{found[1]}_API_KEY=sk-{found[1].lower()}", line)
        assert "…" not in text, text
        done = self.apisix.types(text, self.project)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def installs(self) -> None:
        for begin in ("sudo install ", "sudo cp ", "sudo env OPENAI_API_KEY=sk-… "):
            self.does(command(begin))

    def asks(self, *more: str) -> str:
        """The request of the example, with more arguments."""
        return self.does(command("curl -i http://127.0.0.1:9080/v1/chat/completions") + "".join(f" {word}" for word in more))

    def edits(self, name: str, before: str, text: str) -> None:
        """Puts a text before the only line that begins so; in the file that APISIX has."""
        path = self.apisix.conf / name
        lines = path.read_text().split("\n")
        (place,) = [number for number, line in enumerate(lines) if line.startswith(before)]
        lines[place:place] = self.with_fakes(text).rstrip("\n").split("\n")
        path.write_text("\n".join(lines))

    def remove(self) -> None:
        self.apisix.remove()


@pytest.fixture
def reader(tmp_path: pathlib.Path) -> Iterator[Reader]:
    import client as fake

    with fake.start("openai") as openai, fake.start("deepseek") as deepseek, fake.start("shareai") as shareai:
        with fake.start("anthropic", dialect="anthropic") as anthropic:
            made = Reader(tmp_path, {"openai": openai, "deepseek": deepseek, "shareai": shareai, "anthropic": anthropic})
            yield made
            made.remove()


def keys_of(fake: Any) -> set[str]:
    """The keys that a fake got."""
    return {value for entry in fake.log() for name, value in entry["headers"] if name.lower() in ("authorization", "x-api-key")}


def test_every_command_of_the_readme_is_walked_or_cannot_be() -> None:
    walked = [
        "sudo install -D -m 644 dist/shunt.wasm /usr/local/apisix/shunt/shunt.wasm",
        "sudo cp apisix/config.yaml apisix/apisix.yaml /usr/local/apisix/conf/",
        "sudo env OPENAI_API_KEY=sk-… DEEPSEEK_API_KEY=sk-… apisix start",
        "sudo apisix stop",
        "sudo env OPENAI_API_KEY=sk-wrong DEEPSEEK_API_KEY=sk-… apisix start",
        command("curl -i http://127.0.0.1:9080/v1/nothing"),
        command("curl -i http://127.0.0.1:9080/v1/chat/completions"),
        command("curl -N "),
        command("OPENAI_API_KEY=sk-… DEEPSEEK_API_KEY=sk-… scripts/try-apisix.py"),
        command("scripts/try-apisix.py --write"),
    ]
    others = [line for line in commands() if not any(word in line for word in ELSEWHERE)]
    assert sorted(set(others)) == sorted(walked)


def test_from_apisix_start_to_a_failover_and_back(reader: Reader) -> None:
    reader.installs()
    # It returned, and wrote its logs where README.md says.
    assert (reader.apisix.logs / "error.log").exists() and (reader.apisix.logs / "access.log").exists()
    unknown = reader.does(command("curl -i http://127.0.0.1:9080/v1/nothing"))
    assert unknown.startswith("HTTP/1.1 404") and '"code":"unknown_url"' in unknown
    assert "x-shunt-provider: openai" in reader.asks()

    # A wrong key is one that the provider refuses.
    reader.fakes["openai"].reset()
    reader.fakes["openai"].script(default={"do": "status", "status": 401, "code": "invalid_api_key"})
    reader.does(command("sudo apisix stop"))
    reader.does(command("sudo env OPENAI_API_KEY=sk-wrong "))
    promised = textwrap.dedent(re.search(r"^    HTTP/1.1 200 OK\n(?:    .+\n)+", README, re.MULTILINE)[0]).splitlines()  # type: ignore[index]
    assert set(promised) <= set(reader.asks().splitlines())
    assert keys_of(reader.fakes["openai"]) == {"Bearer sk-wrong"}
    assert keys_of(reader.fakes["deepseek"]) == {"Bearer sk-deepseek"}
    after = reader.asks().splitlines()
    assert {"x-shunt-attempts: deepseek:answered", "x-shunt-degraded: openai:bad_key"} <= set(after)

    # With the right key, as before.
    reader.fakes["openai"].reset()
    reader.does(command("sudo apisix stop"))
    reader.does(command("sudo env OPENAI_API_KEY=sk-… "))
    assert "x-shunt-provider: openai" in reader.asks()
    assert keys_of(reader.fakes["openai"]) == {"Bearer sk-openai"}


def test_streams(reader: Reader) -> None:
    reader.installs()
    ask = command("curl -N ")
    assert reader.does(ask).rstrip().endswith("data: [DONE]")
    # Live, and broken off before its first content: an error event, and nobody else is asked.
    reader.fakes["openai"].script(default={"do": "clean_cut", "after": 0})
    broken = reader.does(ask)
    assert '"code":"stream_truncated"' in broken and "[DONE]" not in broken
    assert reader.fakes["deepseek"].log() == []
    (header,) = set(re.findall(r"-H 'x-shunt-stream: complete'", README))
    whole = reader.does(f"{ask} {header}")
    assert "Hello from deepseek" in "".join(re.findall(r'"content":"([^"]*)"', whole)) and whole.rstrip().endswith("data: [DONE]")


def test_client_authentication_in_front(reader: Reader) -> None:
    reader.installs()
    added = block("key-auth", "routes:").split("- id: shunt\n")[1]
    reader.edits("apisix.yaml", "    uri: /v1/*", added)
    reader.edits("apisix.yaml", "#END", block("key-auth", "consumers:"))
    # APISIX takes it by itself.
    reader.apisix.take_over()
    wait_for(lambda: reader.asks().startswith("HTTP/1.1 401"), 5, "the changed apisix.yaml")
    (header,) = set(re.findall(r"-H 'apikey: team-a-key'", README))
    assert reader.asks(header).startswith("HTTP/1.1 200")
    received = [value for entry in reader.fakes["openai"].log() for _, value in entry["headers"]]
    assert received and not any("team-a-key" in value for value in received)


def test_a_provider_is_added(reader: Reader) -> None:
    reader.installs()
    reader.edits("apisix.yaml", "          # USD per million tokens", block("dialect: anthropic"))
    path = reader.apisix.conf / "apisix.yaml"
    path.write_text(path.read_text().replace("providers: [openai, deepseek, shareai]", "providers: [openai, deepseek, shareai, anthropic]"))
    reader.edits("apisix.yaml", "# One upstream per provider", block("upstream_id: anthropic"))
    reader.edits("apisix.yaml", "#END", block("api.anthropic.com, port: 443"))
    reader.edits("config.yaml", "    - SHAREAI_API_KEY", "    - ANTHROPIC_API_KEY")
    # A reload keeps the environment of the start, so it is not enough.
    reader.does("sudo apisix reload")
    assert "x-shunt-provider: openai" in reader.asks()
    assert "ANTHROPIC_API_KEY is not set" in reader.apisix.error_log()
    reader.does(command("sudo apisix stop"))
    reader.does(command("sudo env OPENAI_API_KEY=sk-… ").replace("env ", "env ANTHROPIC_API_KEY=sk-… "))
    for name in ("openai", "deepseek", "shareai"):
        reader.fakes[name].listen(False)
    assert "x-shunt-provider: anthropic" in reader.asks()
    assert keys_of(reader.fakes["anthropic"]) == {"sk-anthropic"}


def test_the_program_that_tries_everything(reader: Reader) -> None:
    reader.installs()
    told = reader.does(command("OPENAI_API_KEY=sk-… DEEPSEEK_API_KEY=sk-… scripts/try-apisix.py"))
    assert "FAIL" not in told
    billed = sum(len([entry for entry in fake.log() if entry["spent"]]) for fake in reader.fakes.values())
    # The fourth is for a model that none of the two has.
    assert billed == 3 and "get up to 4 requests" in told
    written = reader.does(command("scripts/try-apisix.py --write").replace("/tmp/try", str(reader.project / "try")))
    assert "apisix start" in written and (reader.project / "try" / "apisix.yaml").exists()
