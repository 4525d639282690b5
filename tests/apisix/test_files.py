"""The files of ``apisix/`` without a gateway: that they are APISIX's, that they agree with each other, that their Lua runs."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from typing import Optional

import jsonschema
import pytest
import yaml
from lupa import luajit21

import shipped
from shipped import FOLDER, KEYS, ROOT, SLOTS, Json, Route, read, routes_of_adc, routes_of_apisix

CHECK = ROOT / ".venv" / "bin" / "check-jsonschema"

# What APISIX 3.18 takes, as far as these files use it. Everything else is a mistake here: APISIX leaves some unknown keys
# unread and refuses others, and neither is what a typing error wants.


def fields(required: str = "", **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


def whole(least: int = 0, most: int = 65535) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


def listed(items: Json) -> Json:
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
SECONDS = {"type": "number", "exclusiveMinimum": 0}
STATUSES = {**listed(whole(200, 599)), "uniqueItems": True}
PROBE = {"type": {"enum": ["http", "https", "tcp"]}}
HEALTHY = {"http_statuses": STATUSES, "successes": whole(1, 254)}
UNHEALTHY = {
    "http_statuses": STATUSES,
    "http_failures": whole(1, 254),
    "tcp_failures": whole(1, 254),
    "timeouts": whole(1, 254),
}

UPSTREAM_FIELDS: dict[str, Json] = {
    "type": {"enum": ["roundrobin", "chash", "ewma", "least_conn"]},
    "scheme": {"enum": ["http", "https"]},
    "nodes": listed(
        fields("host port weight", host=TEXT, port=whole(1), weight=whole(), priority={"type": "integer"})
    ),
    "retries": whole(),
    "timeout": fields("connect send read", connect=SECONDS, send=SECONDS, read=SECONDS),
    "keepalive_pool": fields(size=whole(1), idle_timeout={"type": "number", "minimum": 0}, requests=whole(1)),
    "pass_host": {"enum": ["pass", "node", "rewrite"]},
    "upstream_host": TEXT,
    "tls": fields(verify={"type": "boolean"}),
    # Passive checks alone are refused.
    "checks": fields(
        "active",
        active=fields(
            **PROBE,
            timeout=SECONDS,
            host=TEXT,
            port=whole(1),
            http_path=TEXT,
            healthy=fields(interval=whole(1), **HEALTHY),
            unhealthy=fields(interval=whole(1), **UNHEALTHY),
        ),
        passive=fields(**PROBE, healthy=fields(**HEALTHY), unhealthy=fields(**UNHEALTHY)),
    ),
}
UPSTREAM = fields("type nodes", **UPSTREAM_FIELDS)

SERVERLESS = fields(
    "phase functions",
    phase={"enum": ["rewrite", "access", "header_filter", "body_filter", "log", "before_proxy"]},
    functions=listed(TEXT),
)

PLUGINS = fields(
    **{
        "proxy-buffering": fields(disable_proxy_buffering={"type": "boolean"}),
        "serverless-pre-function": SERVERLESS,
        "serverless-post-function": SERVERLESS,
        "key-auth": fields(header=TEXT, query=TEXT, hide_credentials={"type": "boolean"}),
        "prometheus": fields(prefer_name={"type": "boolean"}),
        "traffic-split": fields("rules", rules=listed({"type": "object"})),
        # The filter, as config.yaml's wasm.plugins names it.
        "shunt": fields("conf", conf={"type": "object", "minProperties": 1}),
    }
)

ID = {"type": "string", "pattern": "^[a-zA-Z0-9-_.]{1,64}$"}
VARS = listed(listed({"type": "string"}))

APISIX = fields(
    "routes upstreams",
    plugin_configs=listed(fields("id plugins", id=ID, plugins=PLUGINS)),
    upstreams=listed(fields("id type nodes", id=ID, **UPSTREAM_FIELDS)),
    routes=listed(
        {
            **fields(
                "id uri",
                id=ID,
                uri=TEXT,
                priority={"type": "integer"},
                vars=VARS,
                plugins=PLUGINS,
                plugin_config_id=ID,
                upstream=UPSTREAM,
                upstream_id=ID,
            ),
            "oneOf": [{"required": ["upstream"]}, {"required": ["upstream_id"]}],
        }
    ),
)

# ADC names some things otherwise, and knows no plugin configs.
ADC = fields(
    "services",
    services=listed(
        fields(
            "name routes",
            name=TEXT,
            upstream=UPSTREAM,
            plugins=PLUGINS,
            routes=listed(fields("name uris", name=TEXT, uris=listed(TEXT), vars=VARS, plugins=PLUGINS)),
        )
    ),
)

PORT = whole(1)
CONFIG = fields(
    "deployment apisix wasm plugins nginx_config",
    deployment=fields("role", role={"const": "data_plane"}, role_data_plane=fields(config_provider={"const": "yaml"})),
    apisix=fields(
        node_listen=listed({"anyOf": [PORT, fields("ip port", ip=TEXT, port=PORT)]}),
        ssl=fields(ssl_trusted_certificate=TEXT),
    ),
    wasm=fields(
        plugins=listed(
            fields(
                "name priority file",
                name=TEXT,
                priority={"type": "integer"},
                file=TEXT,
                http_request_phase={"enum": ["access", "rewrite"]},
            )
        )
    ),
    plugins={**listed(TEXT), "uniqueItems": True},
    nginx_config=fields(
        envs=listed({"type": "string", "pattern": "^[A-Z][A-Z0-9_]*$"}),
        http_configuration_snippet=TEXT,
        http_server_configuration_snippet=TEXT,
        http_server_location_configuration_snippet=TEXT,
        http=fields(
            access_log=TEXT,
            access_log_format=TEXT,
            access_log_format_escape={"enum": ["default", "json", "none"]},
            underscores_in_headers={"enum": ["on", "off"]},
            real_ip_from=listed(TEXT),
        ),
    ),
)


@pytest.mark.parametrize(("name", "schema"), [("apisix.yaml", APISIX), ("adc.yaml", ADC), ("config.yaml", CONFIG)])
def test_a_file_says_only_what_apisix_knows(name: str, schema: Json) -> None:
    problems = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft7Validator(schema).iter_errors(read(name))
    ]
    assert problems == []


@pytest.mark.parametrize("name", ["apisix.yaml", "adc.yaml", "config.yaml", "docker-compose.yaml"])
def test_no_key_stands_twice_in_one_mapping(name: str) -> None:
    def look(node: Optional[yaml.Node]) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{node.start_mark}: {keys}"
            for _, value in node.value:
                look(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                look(value)

    look(yaml.compose((FOLDER / name).read_text()))


@pytest.mark.parametrize("name", ["apisix.yaml", "adc.yaml"])
def test_no_time_of_the_day_stands_without_quotes(name: str) -> None:
    # APISIX would read a number to the base 60, which PyYAML does only if it begins with another digit than 0.
    tokens = [token for token in yaml.scan((FOLDER / name).read_text()) if isinstance(token, yaml.ScalarToken)]
    times = [token for token in tokens if re.fullmatch(r"[-+]?\d+(:\d+)+(\.\d*)?", token.value)]
    assert times and [token.start_mark for token in times if token.plain] == []


def test_apisix_reads_a_file_that_ends_with_its_mark() -> None:
    # It looks for the mark in the last ten bytes.
    assert (FOLDER / "apisix.yaml").read_bytes()[-10:].rstrip().endswith(b"#END")


def test_every_plugin_of_a_route_is_switched_on() -> None:
    config = read("config.yaml")
    known = {*config["plugins"], *(plugin["name"] for plugin in config["wasm"]["plugins"])}
    for route in routes_of_apisix() + routes_of_adc():
        assert set(route.plugins) <= known, route.name


def test_no_checks_stand_inside_a_route_with_a_plugin_config() -> None:
    # APISIX gives such a route a version of its own, which its health checks never find again: they do not start.
    for route in read("apisix.yaml")["routes"]:
        assert "plugin_config_id" not in route or "checks" not in route.get("upstream", {}), route["id"]
    with_checks = [route.name for route in routes_of_apisix() if "checks" in route.upstream]
    assert with_checks == [route.name for route in inner_routes()]


# The two forms


def test_adc_says_the_same_as_apisix_yaml() -> None:
    assert routes_of_adc() == routes_of_apisix()


def test_there_is_a_route_for_the_public_listener_and_one_for_each_provider() -> None:
    outer, *inner = routes_of_apisix()
    assert outer.vars == [["shunt_hop", "==", "-"]]
    providers = outer.plugins["shunt"]["conf"]["providers"]
    assert [(route.name, route.vars) for route in inner] == [(name, [["shunt_hop", "==", name]]) for name in providers]


def inner_routes() -> list[Route]:
    return [route for route in routes_of_apisix() if route.vars != [["shunt_hop", "==", "-"]]]


@pytest.mark.parametrize("route", inner_routes(), ids=lambda route: route.name)
def test_an_inner_route_goes_to_its_provider_over_tls_and_to_nobody_else(route: Route) -> None:
    host = route.plugins["shunt"]["conf"]["providers"][route.name]["host"]
    provider, last = route.upstream["nodes"]
    assert (provider["host"], provider["port"], provider["priority"]) == (host, 443, 0)
    assert route.upstream["scheme"] == "https"
    # The filter sets the host, and a try is one try.
    assert (route.upstream["pass_host"], route.upstream["retries"]) == ("pass", 0)
    # Something of ours, so that a key goes nowhere if a check found the provider dead.
    assert (last["host"], last["port"]) == ("127.0.0.1", SLOTS[0])
    # Between the two there is room for a second address of the vendor.
    assert last["priority"] == -2


def seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", text))


def test_nginx_waits_as_long_as_the_limits_allow() -> None:
    outer, *inner = routes_of_apisix()
    limits = outer.plugins["shunt"]["conf"]["limits"]
    assert outer.upstream["timeout"]["read"] >= seconds(limits["first_token"])
    for route in inner:
        # A try ends by the outer route's time, or the filter's, not by its own.
        assert route.upstream["timeout"]["read"] > max(seconds(limits["answer"]), outer.upstream["timeout"]["read"])


def test_no_kept_connection_is_used_while_the_other_side_closes_it() -> None:
    # As a server, APISIX closes after nginx_config.http.keepalive_timeout, by default after 60 s.
    assert "keepalive_timeout" not in read("config.yaml")["nginx_config"]["http"]
    for route in routes_of_apisix():
        assert route.upstream["keepalive_pool"]["idle_timeout"] < 60, route.name


# The tries


def test_there_is_a_try_for_each_inner_listener_in_order() -> None:
    config = read("config.yaml")
    public, *inner = config["apisix"]["node_listen"]
    assert public == 9080
    assert inner == [{"ip": "127.0.0.1", "port": port} for port in SLOTS]
    upstream = routes_of_apisix()[0].upstream
    nodes = sorted(upstream["nodes"], key=lambda node: -node["priority"])
    assert [(node["host"], node["port"]) for node in nodes] == [("127.0.0.1", port) for port in SLOTS]
    assert len({node["priority"] for node in nodes}) == len(nodes)
    assert upstream["retries"] == len(nodes) - 1
    assert len(routes_of_apisix()[0].plugins["shunt"]["conf"]["providers"]) <= len(nodes)


def test_no_header_with_an_underscore_passes_for_the_filters_own() -> None:
    # APISIX's default is "on". test_nginx.py shows what a client could do then.
    assert read("config.yaml")["nginx_config"]["http"]["underscores_in_headers"] == "off"


def test_no_log_goes_to_the_output_of_the_command_that_starts_apisix() -> None:
    # It would keep the command's output open, and end with a reload. test_nginx.py starts nginx with the file.
    for name in ("config.yaml", "apisix.yaml", "adc.yaml", "docker-compose.yaml"):
        text = "\n".join(line for line in (FOLDER / name).read_text().splitlines() if not line.lstrip().startswith("#"))
        assert not re.search(r"/dev/(stdout|stderr|fd)|/proc/self", text), name


# The document


def accepted(document: Json, *keys: str) -> "subprocess.CompletedProcess[str]":
    """What the filter's own parser says of a document if these variables are set."""
    command = ["cargo", "run", "--quiet", "--locked", "--example", "check-config", "--", *keys]
    # APISIX hands an object to the filter as compact JSON.
    text = json.dumps(document, separators=(",", ":"))
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=300)


def document() -> Json:
    return next(document for _, document in shipped.documents())


def test_every_route_has_the_same_document() -> None:
    different = [place for place, other in shipped.documents() if other != document()]
    assert different == []
    # Of each file: the outer route's, and one for each provider.
    assert len(list(shipped.documents())) == 2 * (1 + len(document()["providers"]))


def test_the_document_stands_once_in_each_file() -> None:
    for name in ("apisix.yaml", "adc.yaml"):
        assert (FOLDER / name).read_text().count("api_key: $OPENAI_API_KEY") == 1


def test_the_document_is_envoys() -> None:
    envoy = shipped.document_of_envoy()
    # nginx does not wait between two tries.
    del envoy["retry"]
    assert document() == envoy


def test_the_filter_accepts_the_document() -> None:
    result = accepted(document(), *KEYS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"provider {name}" for name in document()["providers"]]


@pytest.mark.parametrize("key", KEYS)
def test_one_key_is_enough(key: str) -> None:
    result = accepted(document(), key)
    assert result.returncode == 0, result.stderr
    provider, *warnings = result.stdout.splitlines()
    assert provider == f"provider {key.removesuffix('_API_KEY').lower()}"
    for other in set(KEYS) - {key}:
        assert any(f"is left out: {other} is not set" in warning for warning in warnings), warnings


def test_no_key_at_all_is_refused() -> None:
    result = accepted(document())
    assert result.returncode == 1
    assert "none of these providers has a key" in result.stderr


def test_nginx_lets_every_variable_through_that_the_files_name() -> None:
    envs = read("config.yaml")["nginx_config"]["envs"]
    for name in ("apisix.yaml", "adc.yaml"):
        assert set(re.findall(r"\$([A-Z][A-Z0-9_]*)", (FOLDER / name).read_text())) == set(envs) == set(KEYS)


# README.md


def blocks() -> list[Json]:
    """The pieces of YAML in README.md, without the indentation that they have in their file."""
    return [
        yaml.safe_load(textwrap.dedent(text))
        for text in re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    ]


def test_the_provider_that_the_readme_adds_is_accepted() -> None:
    (entry,) = [block for block in blocks() if "anthropic" in block]
    ((name, provider),) = entry.items()
    (route,) = next(block for block in blocks() if isinstance(block, list))
    wider = document()
    wider["providers"][name] = provider
    wider["routes"][0]["providers"].append(name)
    result = accepted(wider, "ANTHROPIC_API_KEY")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, f"provider {name}"), result.stderr
    # Its route is `openai`'s with another name and host.
    like = json.dumps(next(one for one in read("apisix.yaml")["routes"] if one["id"] == "openai"))
    assert route == json.loads(like.replace("api.openai.com", provider["host"]).replace("openai", name))


def test_the_authentication_that_the_readme_puts_in_front_is_apisixs() -> None:
    file = read("apisix.yaml")
    enabled = read("config.yaml")["plugins"]
    (added,) = next(block for block in blocks() if "routes" in block)["routes"]
    (consumer,) = next(block for block in blocks() if "consumers" in block)["consumers"]
    outer = next(route for route in file["routes"] if route["id"] == added["id"])
    assert outer["vars"] == [["shunt_hop", "==", "-"]]
    outer["plugins"] = added["plugins"]
    jsonschema.Draft7Validator(APISIX).validate(file)
    assert {*added["plugins"], *consumer["plugins"]} <= set(enabled)
    assert re.fullmatch("[a-zA-Z0-9_]+", consumer["username"]) and consumer["plugins"]["key-auth"]["key"]


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (FOLDER / "README.md").read_text())
    assert links and [link for link in links if not (FOLDER / link).exists()] == []


# Docker


def test_the_compose_file_follows_its_schema() -> None:
    command = [CHECK, "--builtin-schema", "vendor.compose-spec", FOLDER / "docker-compose.yaml"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_compose_file_publishes_on_loopback_only_and_mounts_what_config_yaml_names() -> None:
    (service,) = read("docker-compose.yaml")["services"].values()
    # 3.17 is the first with proxy-buffering.
    version = re.fullmatch(r"apache/apisix:(\d+)\.(\d+)\.\d+-debian", service["image"])
    assert version is not None and (int(version[1]), int(version[2])) >= (3, 17)
    assert service["ports"] == ["127.0.0.1:9080:9080"]
    assert "network_mode" not in service
    mounts = [volume.split(":") for volume in service["volumes"]]
    targets = {target: (FOLDER / source).resolve() for source, target, _ in mounts}
    (plugin,) = read("config.yaml")["wasm"]["plugins"]
    conf = "/usr/local/apisix/conf"
    assert targets == {
        f"{conf}/config.yaml": FOLDER / "config.yaml",
        f"{conf}/apisix.yaml": FOLDER / "apisix.yaml",
        plugin["file"]: ROOT / "dist" / "shunt.wasm",
    }
    assert all(mode == "ro" for *_, mode in mounts)


class Unset(Exception):
    """What `docker compose` says, and ends."""


def interpolated(text: str, environment: dict[str, str]) -> str:
    """Compose's `${NAME:-default}` and `${NAME:?message}`, which may be nested."""
    found = re.search(r"\$\{(\w+):([-?])", text)
    if found is None:
        return text
    depth, end = 1, found.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    name, kind, rest = found[1], found[2], text[found.end() : end - 1]
    value = environment.get(name)
    if not value:
        if kind == "?":
            raise Unset(rest)
        value = interpolated(rest, environment)
    return text[: found.start()] + value + interpolated(text[end:], environment)


def test_the_compose_file_hands_over_the_keys_that_are_set_and_wants_one() -> None:
    (service,) = read("docker-compose.yaml")["services"].values()

    def environment(given: dict[str, str]) -> dict[str, str]:
        return {name: interpolated(value, given) for name, value in service["environment"].items()}

    for key in KEYS:
        handed = environment({key: "sk-1"})
        assert {name: handed[name] for name in KEYS} == {**dict.fromkeys(KEYS, ""), key: "sk-1"}
    for given in ({}, dict.fromkeys(KEYS, "")):
        with pytest.raises(Unset) as error:
            environment(given)
        assert all(key in str(error.value) for key in KEYS)


# Lua


class Nginx:
    """The little of `ngx` that the Lua lines use; whatever else they ask for is an error."""

    def __init__(self, phase: str, variables: dict[str, str], argument: Optional[str] = None) -> None:
        self.lua = luajit21.LuaRuntime(unpack_returned_tuples=True)
        self.variables = self.lua.table_from(variables)
        self.arguments = self.lua.table_from({1: argument})
        self.headers: dict[str, str] = {}
        self.body: list[str] = []
        strict = self.lua.eval(
            "function(of) return setmetatable(of, {__index = function(_, name) error('ngx has no ' .. name) end}) end"
        )
        request = {
            "set_header": self.headers.__setitem__,
            "read_body": lambda: self.body.append("read"),
            "set_body_data": self.body.append,
        }
        self.lua.globals().ngx = strict(
            self.lua.table_from(
                {
                    "get_phase": lambda: phase,
                    "var": self.variables,
                    "arg": self.arguments,
                    "req": strict(self.lua.table_from(request)),
                }
            )
        )

    def run(self, text: str) -> "Nginx":
        """As the serverless plugins do: the text is a chunk, and what it returns is called."""
        function = self.lua.execute(text)
        assert luajit21.lua_type(function) == "function"
        # A value returned would end the request.
        assert function(None, None) is None
        return self


def lines(plugin: str, phase: str) -> list[str]:
    """The functions of a plugin in a phase, each once."""
    confs = [route.plugins[plugin] for route in routes_of_apisix()]
    return list(dict.fromkeys(text for conf in confs if conf["phase"] == phase for text in conf["functions"]))


def test_there_are_four_lua_functions() -> None:
    texts = {text for route in routes_of_apisix() for name in route.plugins if "serverless" in name for text in route.plugins[name]["functions"]}
    assert len(texts) == 4


@pytest.mark.parametrize(
    ("variables", "tries"),
    [
        ({"shunt_tries": ""}, "-"),
        ({"shunt_tries": "", "upstream_http_x_shunt_try": "a overloaded 503 0 b"}, "a overloaded 503 0 b"),
        ({"shunt_tries": "-", "upstream_http_x_shunt_try": "b x 500 0 -"}, "-,b x 500 0 -"),
        ({"shunt_tries": "a x 500 0 b"}, "a x 500 0 b,-"),
    ],
)
def test_before_a_retry_the_try_before_is_added_to_the_list(variables: dict[str, str], tries: str) -> None:
    (text,) = lines("serverless-pre-function", "before_proxy")
    nginx = Nginx("balancer", variables).run(text)
    assert nginx.variables["shunt_tries"] == tries
    assert nginx.headers == {"x-shunt-tries": tries}


def test_before_the_first_try_there_is_nothing_to_add() -> None:
    (text,) = lines("serverless-pre-function", "before_proxy")
    nginx = Nginx("access", {"shunt_tries": ""}).run(text)
    assert (nginx.variables["shunt_tries"], nginx.headers) == ("", {})


@pytest.mark.parametrize(("body", "calls"), [("{}", ["read", "{}"]), ("", [])])
def test_the_body_that_the_filter_made_is_handed_over(body: str, calls: list[str]) -> None:
    (text,) = lines("serverless-post-function", "access")
    assert Nginx("access", {"shunt_body": body}).run(text).body == calls


@pytest.mark.parametrize(("switch", "left"), [("1", "new"), ("", "old")])
def test_a_piece_is_replaced_if_the_filter_says_so(switch: str, left: str) -> None:
    (text,) = lines("serverless-post-function", "body_filter")
    variables = {"shunt_chunks": switch, "shunt_chunk": "new"}
    assert Nginx("body_filter", variables, argument="old").run(text).arguments[1] == left


def test_an_answer_goes_on_unless_the_filter_breaks_it_off() -> None:
    (text,) = lines("serverless-pre-function", "body_filter")
    Nginx("body_filter", {"shunt_cut": ""}).run(text)
    with pytest.raises(luajit21.LuaError, match="takes too long"):
        Nginx("body_filter", {"shunt_cut": "1"}).run(text)


@pytest.mark.parametrize(("told", "left"), [("HTTP/1.1 502 -", ["HTTP/1.1 502 -", True]), ("", ["old", None])])
def test_an_answer_that_is_not_http_is_replaced_as_a_whole(told: str, left: list[object]) -> None:
    (text,) = lines("serverless-pre-function", "body_filter")
    arguments = Nginx("body_filter", {"shunt_cut": told}, argument="old").run(text).arguments
    assert [arguments[1], arguments[2]] == left


def test_every_variable_of_the_lua_lines_is_set_in_config_yaml() -> None:
    texts = [*lines("serverless-pre-function", "before_proxy"), *lines("serverless-post-function", "access")]
    texts += lines("serverless-post-function", "body_filter") + lines("serverless-pre-function", "body_filter")
    used = {name for text in texts for name in re.findall(r"ngx\.var\.(shunt_\w+)", text)}
    snippet = read("config.yaml")["nginx_config"]["http_server_location_configuration_snippet"]
    assert used <= set(re.findall(r"set \$(\w+) ", snippet))
