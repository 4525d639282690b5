"""Debian's nginx with its Lua module, as APISIX would set it up from ``apisix/``, and providers to stand behind it.

The snippets of config.yaml and the Lua lines of apisix.yaml are used as they are; only ports and addresses are replaced.
Around them stands what APISIX's own template has (nginx.conf below, gateway.lua).
"""

from __future__ import annotations

import contextlib
import http.server
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from typing import Iterator, NamedTuple, Optional

import certifi

import shipped
from shipped import ROOT, Json

sys.path.append(str(ROOT / "tests" / "gateway"))
from gateway import free_port, release_port, wait_for

HERE = pathlib.Path(__file__).resolve().parent
LUA = "/usr/share/lua/5.1"


def binary() -> Optional[str]:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


def missing() -> Optional[str]:
    """Why the tests cannot run here."""
    if binary() is None:
        return "nginx is not installed"
    if not (modules() / "ngx_http_lua_module.so").exists():
        return "nginx's Lua module (libnginx-mod-http-lua) is not installed"
    if not pathlib.Path(LUA, "resty/core.lua").exists():
        return "lua-resty-core is not installed"
    return None


def modules() -> pathlib.Path:
    told = subprocess.run([str(binary()), "-V"], capture_output=True, text=True, timeout=10).stderr
    found = re.search(r"--modules-path=(\S+)", told)
    return pathlib.Path(found.group(1) if found else "/usr/lib/nginx/modules")


# Providers


class Seen(NamedTuple):
    """A request as a provider saw it. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """``pieces`` are sent as chunks; a callable between two is called, and one that returns False ends the connection."""

    status: int = 200
    headers: dict[str, str] = {}
    pieces: tuple[object, ...] = (b"hello",)
    # The body ends with the connection, as HTTP/1.0 has it.
    until_close: bool = False
    # The pieces are all that is sent: there is no status line but what they say. Then the connection is closed.
    bare: bool = False


class Provider:
    """Answers what ``script`` says (None: closes), then says hello, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.script: list[Optional[Answer]] = []
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 20

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                provider.answer(self)

            do_GET = do_POST

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # A gateway that hangs up is what some tests are about.

        self.port = free_port()
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.command, request.path, headers, body))
        told = self.script.pop(0) if self.script else Answer()
        if told is None:
            request.close_connection = True
            return
        if told.bare:
            request.close_connection = True
            for piece in told.pieces:
                if callable(piece):
                    piece()
                else:
                    request.wfile.write(bytes(piece))  # type: ignore[call-overload]
            return
        request.send_response(told.status)
        for name, value in told.headers.items():
            request.send_header(name, value)
        if told.status in (204, 304):
            request.end_headers()
            return
        if told.until_close:
            request.send_header("connection", "close")
        else:
            request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        for piece in told.pieces:
            if callable(piece):
                if piece() is False:
                    request.close_connection = True
                    return
            else:
                assert isinstance(piece, bytes)
                request.wfile.write(piece if told.until_close else b"%x\r\n%s\r\n" % (len(piece), piece))
        if not told.until_close:
            request.wfile.write(b"0\r\n\r\n")

    def close(self) -> None:
        """Nobody listens there any more; may be called again."""
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    """A port where connections are refused."""
    port = free_port()
    yield port
    release_port(port)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of somebody who takes connections and never says anything."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port), backlog=16):
        yield port
    release_port(port)


@contextlib.contextmanager
def hanging_up() -> Iterator[int]:
    """The port of somebody who reads a request and closes without an answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(10)
            text = b""
            while b"\r\n\r\n" not in text:
                text += self.request.recv(65536)

    port = free_port()
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield port
        server.shutdown()
    release_port(port)


# nginx

CONF = """
load_module %(modules)s/ndk_http_module.so;
load_module %(modules)s/ngx_http_lua_module.so;
daemon %(daemon)s;
master_process %(daemon)s;
%(user)s
error_log %(folder)s/error.log warn;
pid %(folder)s/nginx.pid;
events { accept_mutex off; worker_connections 256; }
http {
    lua_package_path "%(folder)s/?.lua;%(here)s/?.lua;%(lua)s/?.lua;;";
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    log_format main escape=%(escape)s '%(format)s';
    uninitialized_variable_warn off;
    access_log logs/access.log main buffer=16384 flush=3;
    client_max_body_size 0;
    underscores_in_headers %(underscores)s;
    variables_hash_max_size 2048;

    # http_configuration_snippet
%(http)s

    upstream apisix_backend {
        server 0.0.0.1;
        balancer_by_lua_block { require("gateway").balancer() }
        keepalive 320;
    }
    init_by_lua_block { require "resty.core" }

    server {
%(listen)s
        server_name _;
        # APISIX writes its `ssl_trusted_certificate` here.
        proxy_ssl_trusted_certificate %(trusted)s;

        # http_server_configuration_snippet
%(server)s

        location / {
            set $upstream_upgrade   '';
            set $upstream_connection '';
            set $upstream_scheme    'http';
            set $upstream_host      $http_host;
            set $upstream_uri       '';
            set $ctx_ref            '';

            # http_server_location_configuration_snippet
%(location)s

            access_by_lua_block { require("gateway").access() }
%(proxy)s
        }
        location @disable_proxy_buffering {
            access_by_lua_block { require("gateway").fetch() }
%(proxy)s
            proxy_buffering off;
        }
    }
}
"""

PROXY = """
            proxy_http_version 1.1;
            proxy_set_header   Host              $upstream_host;
            proxy_set_header   Upgrade           $upstream_upgrade;
            proxy_set_header   Connection        $upstream_connection;
            proxy_set_header   X-Real-IP         $remote_addr;
            proxy_pass_header  Date;
            proxy_pass         $upstream_scheme://apisix_backend$upstream_uri;
            header_filter_by_lua_block { require("gateway").header_filter() }
            body_filter_by_lua_block { require("gateway").body_filter() }
"""


def lua(value: Json) -> str:
    """JSON's values as a Lua expression."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{lua(key)}] = {lua(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(lua, value)) + "}"
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
    if value is None:
        return "nil"
    return str(value).lower() if isinstance(value, bool) else str(value)


def with_seventh(snippet: str) -> str:
    """The map with a line for one more try: "in the `map`, write `908[1-7]` in all three places, and add a line for `9087`"."""
    assert snippet.count("908[1-6]") == 3
    (last,) = [line for line in snippet.splitlines(keepends=True) if "9086" in line]
    more = last.replace("9086", "9087").replace("shunt_6", "shunt_7").replace(" [^,|]+,", " [^,|]+,[^,|]+,", 1)
    return snippet.replace("908[1-6]", "908[1-7]").replace(last, last + more)


class Gateway:
    """nginx with the shipped snippets and Lua lines, and a provider for each name.

    ``slots`` replaces the node of a slot (counted from 1) by another port; ``read`` is the outer route's read timeout in
    seconds. ``daemon``: nginx runs as `apisix start` runs it, in the background with a worker of its own. ``seventh``: there is one
    more inner listener, added as apisix/README.md says.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        slots: Optional[dict[int, int]] = None,
        read: float = 10,
        daemon: bool = False,
        seventh: bool = False,
    ) -> None:
        self.slots = (*shipped.SLOTS, 9087) if seventh else shipped.SLOTS
        self.folder = folder
        self.daemon = daemon
        self.access_log = folder / "logs" / "access.log"
        self.access_log.parent.mkdir()
        self.port = free_port()
        self.inner = [free_port() for _ in self.slots]
        self.nobody = free_port()
        self.providers: dict[str, Provider] = {}
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.config = shipped.read("config.yaml")
        if seventh:
            nginx = self.config["nginx_config"]
            nginx["http_configuration_snippet"] = with_seventh(nginx["http_configuration_snippet"])
        self._write(slots or {}, read)

    def replaced(self, text: str) -> str:
        """A snippet with the ports of this test."""
        ports = dict(zip(map(str, self.slots), map(str, self.inner)))
        text = text.replace(f"908[1-{len(ports)}]", f"(?:{'|'.join(ports.values())})")
        return re.sub("|".join(ports), lambda found: ports[found.group()], text)

    def _write(self, slots: dict[int, int], read: float) -> None:
        nginx = self.config["nginx_config"]
        routes = {}
        for route in shipped.routes_of_apisix():
            ((variable, operator, hop),) = route.vars
            assert (variable, operator) == ("shunt_hop", "==")
            upstream = route.upstream
            if hop == "-":
                upstream["timeout"]["read"] = read
                for slot, node in enumerate(upstream["nodes"], 1):
                    node["port"] = slots.get(slot, self.inner[shipped.SLOTS.index(node["port"])])
            else:
                provider = self.providers[hop] = Provider()
                upstream["scheme"] = "http"
                upstream["nodes"][0].update(host="127.0.0.1", port=provider.port)
                # Over TLS the last node fails as nobody does.
                upstream["nodes"][1]["port"] = self.nobody
            # `conf` is for the filter, which is not here.
            plugins = {name: conf for name, conf in route.plugins.items() if name != "shunt"}
            routes[hop] = {"upstream": upstream, "plugins": plugins}
        (self.folder / "routes.lua").write_text(f"return {lua(routes)}\n")
        listen = [self.port, *self.inner]
        conf = CONF % {
            "daemon": "on" if self.daemon else "off",
            # Otherwise the workers could not write to the test's folder.
            "user": "user root;" if os.geteuid() == 0 else "",
            "modules": modules(),
            "folder": self.folder,
            "here": HERE,
            "lua": LUA,
            "escape": nginx["http"]["access_log_format_escape"],
            "format": nginx["http"]["access_log_format"],
            # APISIX's default.
            "underscores": nginx["http"].get("underscores_in_headers", "on"),
            "http": self.replaced(nginx["http_configuration_snippet"]),
            "trusted": certifi.where(),
            "server": nginx["http_server_configuration_snippet"],
            "location": nginx["http_server_location_configuration_snippet"],
            "listen": "".join(f"        listen 127.0.0.1:{port} default_server;\n" for port in listen),
            "proxy": PROXY,
        }
        (self.folder / "nginx.conf").write_text(conf)

    def url(self, slot: int = 0) -> str:
        """Of the public listener, or of an inner one, counted from 1."""
        return f"http://127.0.0.1:{self.inner[slot - 1] if slot else self.port}"

    def errors(self) -> str:
        """nginx's log, without what it says about upstreams that the test broke."""
        log = self.folder / "error.log"
        lines = log.read_text().splitlines() if log.exists() else []
        harmless = (
            "while connecting to upstream",
            "while reading response header from upstream",
            "upstream prematurely closed connection",
            "buffered to a temporary file",
        )
        return "\n".join(line for line in lines if not any(text in line for text in harmless))

    def master(self) -> Optional[int]:
        """The process that keeps the workers, if nginx runs in the background."""
        file = self.folder / "nginx.pid"
        return int(file.read_text()) if file.exists() else None

    def workers(self) -> list[int]:
        """The processes that serve requests, if nginx runs in the background."""
        master = self.master()
        return [int(pid) for pid in pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    def __enter__(self) -> Gateway:
        command = [str(binary()), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.output = open(self.folder / "output.log", "wb")
        if self.daemon:
            # As whoever reads all that the command says, until nobody can say more.
            try:
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
            except subprocess.TimeoutExpired:
                self.__exit__()
                raise
            assert done.returncode == 0, done.stdout.decode()
        else:
            self.process = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT)

        def is_up() -> bool:
            ended = self.process is not None and self.process.poll() is not None
            assert not ended, (self.folder / "output.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_for(is_up, what="nginx to listen")
        return self

    def __exit__(self, *error: object) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        elif self.daemon:
            master = self.master()
            if master is not None:
                os.kill(master, signal.SIGTERM)
                wait_for(lambda: self.master() is None, what="nginx to end")
        self.output.close()
        for provider in self.providers.values():
            provider.close()
        for port in [self.port, self.nobody, *self.inner, *(provider.port for provider in self.providers.values())]:
            release_port(port)
