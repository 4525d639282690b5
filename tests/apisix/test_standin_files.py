"""What the stand-in makes of APISIX's two files: health checks by their layout, YAML 1.1, edits, and plugins that are not there."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Callable, Iterator

import httpx
import pytest

from server import free_port, release_port, wait_for
from standin import Standin, Upstream
from test_standin import CHAT, ask

Edit = Callable[[Any, Any], None]

#: Fast enough for a test; APISIX itself takes whole seconds.
FAST = {"active": {"healthy": {"interval": 0.05, "successes": 1}, "unhealthy": {"interval": 0.05, "tcp_failures": 1}}}
#: No active check comes in a test's way.
RARE = {"active": {"healthy": {"interval": 3600, "successes": 1}, "unhealthy": {"interval": 3600, "tcp_failures": 1}}}

OPENAI = "/upstreams/openai"


# Health checks


@pytest.fixture
def checked(guest: Any, fakes: Any) -> Callable[..., Standin]:
    """Starts a stand-in with the shipped upstream of `openai`, its last node replaced by the other fake, so that it is seen."""

    def start(checks: Any, edit: Edit | None = None) -> Standin:
        def change(settings: Any, routes: Any) -> None:
            upstream = routes["upstreams"][0]
            upstream["checks"] = {
                "active": {"type": "tcp", **checks["active"]},
                "passive": {"type": "http", **checks.get("passive", {})},
            }
            upstream["nodes"][-1]["port"] = fakes["deepseek"].port
            if edit:
                edit(settings, routes)

        standin: Standin = guest(edit=change)
        return standin

    return start


def states(standin: Standin, name: str = OPENAI) -> dict[int, str]:
    """The status of each node, by its port."""
    return {node["port"]: node["status"] for node in standin.checks()[name]}


def test_checks_inside_a_route_with_a_plugin_config_are_refused(guest: Any) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        provider = routes["routes"][1]
        provider["upstream"] = {key: value for key, value in routes["upstreams"][0].items() if key != "id"}
        provider["upstream"]["checks"] = {"active": {"type": "tcp"}}
        del provider["upstream_id"]

    with pytest.raises(RuntimeError, match="route openai: its checks would never start"):
        guest(edit=edit)


def test_the_shipped_checks_start_with_the_first_request_of_a_provider(fakes: Any, checked: Any) -> None:
    standin = checked(FAST)
    assert standin.checks() == {OPENAI: []}
    assert ask(standin).status_code == 200
    wait_for(lambda: standin.checks()[OPENAI], 10, "the checks to begin")
    [live, last] = standin.checks()[OPENAI]
    assert (live["ip"], live["port"], live["hostname"]) == ("127.0.0.1", fakes["openai"].port, "127.0.0.1")
    assert last["port"] == fakes["deepseek"].port
    assert live["counter"] == {"success": 0, "http_failure": 0, "tcp_failure": 0, "timeout_failure": 0}
    answer = httpx.get(f"http://127.0.0.1:{standin.control}/v1/healthcheck{OPENAI}", trust_env=False)
    assert (answer.json()["name"], answer.json()["type"]) == (OPENAI, "tcp")
    missing = httpx.get(f"http://127.0.0.1:{standin.control}/v1/healthcheck/upstreams/nobody", trust_env=False)
    assert (missing.status_code, missing.json()) == (404, {"error_msg": "upstreams[nobody] not found"})


def test_a_dead_node_is_passed_over_once_the_checks_found_it(fakes: Any, checked: Any) -> None:
    fakes["openai"].listen(False)
    standin = checked(FAST)
    wait_for(lambda: ask(standin, x_shunt_plan="openai").status_code == 200 and fakes["deepseek"].log(), 10, "the node to be found dead")
    assert states(standin) == {fakes["openai"].port: "unhealthy", fakes["deepseek"].port: "healthy"}
    fakes["openai"].listen(True)
    wait_for(lambda: ask(standin, x_shunt_plan="openai").status_code == 200 and fakes["openai"].log(), 10, "the node to be found alive")
    assert states(standin)[fakes["openai"].port] == "healthy"


def test_a_second_address_of_the_vendor_is_used_while_the_first_is_dead(fakes: Any, checked: Any) -> None:
    dead = free_port()
    second = fakes["openai"].port

    def edit(_settings: Any, routes: Any) -> None:
        # As the comment in apisix.yaml says: between the two that are there.
        first, last = routes["upstreams"][0]["nodes"]
        assert (first["priority"], last["priority"]) == (0, -2)
        between = {"host": "127.0.0.1", "port": second, "weight": 1, "priority": -1}
        routes["upstreams"][0]["nodes"] = [{**first, "port": dead}, between, last]

    standin = checked(FAST, edit)
    wait_for(lambda: ask(standin, x_shunt_plan="openai").status_code == 200 and fakes["openai"].log(), 10, "the second address to be asked")
    assert fakes["deepseek"].log() == []
    fakes["openai"].listen(False)
    wait_for(lambda: ask(standin, x_shunt_plan="openai").status_code == 200 and fakes["deepseek"].log(), 10, "the last node to be asked")
    assert states(standin) == {dead: "unhealthy", second: "unhealthy", fakes["deepseek"].port: "healthy"}
    release_port(dead)


def test_passive_checks_pass_a_failing_node_over(fakes: Any, checked: Any) -> None:
    standin = checked({**RARE, "passive": {"unhealthy": {"http_statuses": [503], "http_failures": 2}}})
    assert ask(standin).status_code == 200
    wait_for(lambda: standin.checks()[OPENAI], 10, "the checks to begin")
    fakes["openai"].reset()
    fakes["openai"].script(default={"do": "status", "status": 503})
    for _ in range(4):
        # What comes after the plan goes to its first again: the first request fails twice there.
        assert ask(standin, x_shunt_plan="openai").status_code == 200
    assert (len(fakes["openai"].log()), len(fakes["deepseek"].log())) == (2, 4)
    assert states(standin)[fakes["openai"].port] == "unhealthy"


def test_passive_checks_are_about_the_status_that_the_filter_set(fakes: Any, checked: Any) -> None:
    standin = checked({**RARE, "passive": {"unhealthy": {"http_statuses": [418], "http_failures": 5}}})
    assert ask(standin).status_code == 200
    wait_for(lambda: standin.checks()[OPENAI], 10, "the checks to begin")
    assert ask(standin, "status", x_status="418").status_code == 418
    [live, _] = standin.checks()[OPENAI]
    assert (live["status"], live["counter"]["http_failure"]) == ("mostly_healthy", 1)


def test_passive_checks_alone_are_refused(guest: Any) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        routes["upstreams"][0]["checks"] = {"passive": {"type": "http"}}

    with pytest.raises(RuntimeError, match="refuses passive checks without active ones"):
        guest(edit=edit)


def test_an_upstream_of_one_node_is_not_checked(checked: Any) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        routes["upstreams"][0]["nodes"] = routes["upstreams"][0]["nodes"][:1]
        routes["upstreams"][1]["checks"] = routes["upstreams"][0]["checks"]

    standin = checked(FAST, edit)
    for plan in ("openai", "deepseek"):
        assert ask(standin, x_shunt_plan=plan).status_code == 200
    wait_for(lambda: standin.checks()["/upstreams/deepseek"], 10, "the checks of the other to begin")
    assert standin.checks()[OPENAI] == []


@pytest.mark.parametrize("inner", [True, False], ids=["inside the service", "by its id"])
def test_checks_start_in_the_layout_of_services(checked: Any, inner: bool) -> None:
    def edit(_settings: Any, routes: Any) -> None:
        service: Any = {"id": "one", "plugins": routes["plugin_configs"][1]["plugins"]}
        if inner:
            service["upstream"] = {key: value for key, value in routes["upstreams"][0].items() if key != "id"}
        else:
            service["upstream_id"] = "openai"
        routes["services"] = [service]
        for key in ("plugin_config_id", "upstream_id"):
            del routes["routes"][1][key]
        routes["routes"][1]["service_id"] = "one"

    standin = checked(FAST, edit)
    assert ask(standin).status_code == 200
    name = "/services/one" if inner else OPENAI
    wait_for(lambda: standin.checks()[name], 10, "the checks to begin")


# YAML 1.1


def configuration(standin: Standin) -> Any:
    return json.loads(ask(standin, "answer").headers["x-guest-conf"])


def rewritten(standin: Standin, old: str, new: str) -> None:
    """Changes the text of apisix.yaml itself, not its values."""
    text = (standin.folder / "apisix.yaml").read_text()
    assert old in text
    standin.write_text("apisix.yaml", text.replace(old, new))


@pytest.mark.parametrize(
    ("written", "arrives"),
    [
        ("01:00", 60),
        ('"01:00"', "01:00"),
        ("1:30", 90),
        ("yes", True),
        ("off", False),
        ("010", 8),
        ("1_000", 1000),
        ("5m", "5m"),
        ("~", {}),
        ("[]", {}),
        ("[on]", [True]),
    ],
)
def test_a_value_arrives_as_yaml_1_1_and_lua_have_it(guest: Any, written: str, arrives: Any) -> None:
    standin = guest(conf={"value": "HERE"})
    rewritten(standin, '"HERE"', written)
    assert configuration(standin) == {"value": arrives}


# Edits


def test_an_edit_within_the_second_of_the_one_before_is_missed(guest: Any) -> None:
    standin = guest(conf={"value": "first"})
    assert configuration(standin) == {"value": "first"}
    path = standin.folder / "apisix.yaml"
    at = path.stat().st_mtime
    path.write_text(path.read_text().replace("first", "second"))
    os.utime(path, (at + 0.9, at + 0.9))
    assert configuration(standin) == {"value": "first"}
    os.utime(path, (at + 1, at + 1))
    assert configuration(standin) == {"value": "second"}


@pytest.mark.parametrize(("end", "used"), [("#END", True), ("#END\n\n", True), ("# END", False), ("#END of it\n", False), ("", False)])
def test_an_edit_without_the_mark_at_its_end_is_not_used(guest: Any, end: str, used: bool) -> None:
    standin = guest(conf={"value": "first"})
    text = (standin.folder / "apisix.yaml").read_text().replace("first", "second")
    standin.write_text("apisix.yaml", text.removesuffix("#END\n") + end)
    assert configuration(standin) == {"value": "second" if used else "first"}


# Plugins that are not there


def page(answer: httpx.Response) -> tuple[int, bool]:
    """The status, and whether it is a page of nginx's own."""
    return answer.status_code, "<center>openresty</center>" in answer.text


@pytest.mark.parametrize("missing", ["serverless-pre-function", "proxy-buffering"])
def test_a_plugin_that_is_missing_from_plugins_is_a_503_page_on_every_route_with_its_plugin_config(guest: Any, fakes: Any, missing: str) -> None:
    def edit(settings: Any, routes: Any) -> None:
        settings["plugins"].remove(missing)

    standin = guest(edit=edit)
    assert page(ask(standin)) == (503, True)
    assert f"unknown plugin [{missing}]" in standin.log()
    # A path that no route leads to is what it was.
    elsewhere = httpx.get(f"{standin.url}/favicon.ico", trust_env=False)
    assert (elsewhere.status_code, elsewhere.json()) == (404, {"error_msg": "404 Route Not Found"})
    assert fakes["openai"].log() == []


def test_a_filter_whose_file_is_not_there_is_a_503_page(guest: Any, fakes: Any) -> None:
    def edit(settings: Any, routes: Any) -> None:
        settings["wasm"]["plugins"][0]["file"] = "/nowhere/shunt.wasm"

    standin = guest(edit=edit)
    assert page(ask(standin)) == (503, True)
    assert "failed to load plugin [shunt]" in standin.log() and "/nowhere/shunt.wasm" in standin.log()
    assert fakes["openai"].log() == []


def test_an_unknown_plugin_of_a_route_itself_takes_the_route_away(guest: Any, fakes: Any) -> None:
    def edit(settings: Any, routes: Any) -> None:
        routes["routes"][0]["plugins"] = {"key-auht": {}}

    standin = guest(edit=edit)
    assert ask(standin).json() == {"error_msg": "404 Route Not Found"}
    assert "[routes] err:unknown plugin [key-auht]" in standin.log()


def test_an_unknown_plugin_of_a_service_is_a_404_page(guest: Any) -> None:
    def edit(settings: Any, routes: Any) -> None:
        upstream = {"type": "roundrobin", "nodes": {"127.0.0.1:1": 1}}
        routes["services"] = [{"id": "s", "upstream": upstream, "plugins": {"key-auht": {}}}]
        routes["routes"] = [{"id": "1", "uri": CHAT, "service_id": "s"}]

    assert page(ask(guest(edit=edit))) == (404, True)


# The filter, on files like these


@contextlib.contextmanager
def filtered(**more: Any) -> Iterator[Standin]:
    """A stand-in with the filter itself, whose provider's port nobody listens at."""
    port = free_port()
    provider = {"host": "a.test", "api_key": "$OPENAI_API_KEY", "models": {"*": "*"}}
    route = {"name": "chat", "match": {"path": CHAT}, "providers": ["openai"]}
    conf = {"providers": {"openai": provider}, "routes": [route], **more}
    with Standin(conf, {"openai": Upstream(port)}) as standin:
        yield standin
    release_port(port)


def test_the_filter_says_that_a_time_without_quotes_needs_them() -> None:
    window = {"days": ["mon"], "from": "01:00", "to": "04:00", "multiply": 2}
    with filtered(prices={"openai": {"m": {"input": 1, "output": 2, "windows": [window]}}}) as standin:
        rewritten(standin, '"01:00"', "01:00")
        answer = ask(standin)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "gateway_misconfigured")
        assert 'windows[0].from: expected a time of the day in UTC, in quotes, such as "09:30", found 60' in standin.log()


def test_the_filter_takes_an_empty_list_that_arrives_as_an_empty_object() -> None:
    with filtered(passthrough=[], budgets=[]) as standin:
        answer = ask(standin)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "all_providers_failed")
