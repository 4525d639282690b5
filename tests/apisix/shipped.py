"""The files of ``apisix/`` as data, and what the tests look for in them."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Iterator, NamedTuple

import yaml

Json = Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "apisix"
KEYS = ("OPENAI_API_KEY", "DEEPSEEK_API_KEY", "SHAREAI_API_KEY")

# The ports of config.yaml's inner listeners, in the order of tries.
SLOTS = (9081, 9082, 9083, 9084, 9085, 9086)


def read(name: str) -> Json:
    """A file as it is, without shared parts: what one test changes, another does not see."""
    return json.loads(json.dumps(yaml.safe_load((FOLDER / name).read_text())))


class Route(NamedTuple):
    """A route as APISIX merges it: its own fields, with its service's or its plugin config's."""

    name: str
    uris: list[str]
    vars: Json
    upstream: Json
    plugins: dict[str, Json]


def routes_of_apisix() -> list[Route]:
    file = read("apisix.yaml")
    plugins = {config["id"]: config["plugins"] for config in file["plugin_configs"]}
    # An upstream's id is its name alone; ADC, which keeps it inside its service, has none.
    upstreams = {upstream.pop("id"): upstream for upstream in file["upstreams"]}
    return [
        Route(
            route["id"],
            [route["uri"]],
            route["vars"],
            route["upstream"] if "upstream" in route else upstreams[route["upstream_id"]],
            {**plugins[route["plugin_config_id"]], **route.get("plugins", {})},
        )
        for route in file["routes"]
    ]


def routes_of_adc() -> list[Route]:
    return [
        Route(
            route["name"],
            route["uris"],
            route["vars"],
            service["upstream"],
            {**service.get("plugins", {}), **route.get("plugins", {})},
        )
        for service in read("adc.yaml")["services"]
        for route in service["routes"]
    ]


def documents() -> Iterator[tuple[str, Json]]:
    """Every configuration of the filter, and where it stands."""
    for file, routes in (("apisix.yaml", routes_of_apisix()), ("adc.yaml", routes_of_adc())):
        for route in routes:
            yield f"{file}: {route.name}", route.plugins["shunt"]["conf"]


def document_of_envoy() -> Json:
    text = (ROOT / "envoy" / "listeners.yaml").read_text()

    def find(value: Json) -> Iterator[str]:
        if isinstance(value, dict):
            for child in value.values():
                yield from find(child)
        elif isinstance(value, list):
            for child in value:
                yield from find(child)
        elif isinstance(value, str) and '"providers"' in value:
            yield value

    # One document, whichever plugins are given it.
    (document,) = set(find(yaml.safe_load(text)))
    return json.loads(document)
