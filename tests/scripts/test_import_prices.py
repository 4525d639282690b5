"""The importer of prices, run as a person runs it, against entries copied from LiteLLM's table (litellm 1.109.1)."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from decimal import Decimal
from typing import Any, Optional

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "import-prices.py"
TABLE = pathlib.Path(__file__).with_name("litellm_prices.json")
WORKDAYS = ["mon", "tue", "wed", "thu", "fri"]


def run(
    *arguments: str, status: int = 0, path: Optional[pathlib.Path] = None, flags: tuple[str, ...] = ()
) -> tuple[str, str]:
    """What it printed and what it said. `path` is where python looks for packages first."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [sys.executable, *flags, str(PROGRAM), *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def imported(*arguments: str, status: int = 0) -> Any:
    printed, _ = run("--table", str(TABLE), *arguments, status=status)
    return json.loads(printed, parse_float=Decimal)["prices"]


def of(model: str, *arguments: str) -> Any:
    """The price of PROVIDER/MODEL."""
    provider, _, name = model.partition("/")
    return imported(model, *arguments)[provider][name]


def test_a_price_is_in_dollars_per_million_tokens() -> None:
    assert of("openai/gpt-5.4-mini") == {
        "input": Decimal("0.75"),
        "cached_input": Decimal("0.075"),
        "output": Decimal("4.5"),
        "calls": {"web_search": Decimal("0.01"), "code_interpreter": Decimal("0.03")},
        "service_tiers": {"flex": Decimal("0.5"), "priority": 2, "batch": Decimal("0.5")},
    }


def test_a_cache_that_is_kept_for_an_hour_has_a_price_of_its_own() -> None:
    price = of("anthropic/claude-sonnet-4-5-20250929")
    assert (price["cache_write"], price["cache_write_1h"]) == (Decimal("3.75"), 6)
    assert price["calls"] == {"web_search": Decimal("0.01")}


def test_audio_has_prices_of_its_own() -> None:
    price = of("openai/gpt-audio")
    assert (price["input"], price["audio_input"], price["output"], price["audio_output"]) == (Decimal("2.5"), 32, 10, 64)
    assert "audio_output" not in of("gemini/gemini-2.5-flash")


def test_a_service_tier_that_is_no_single_factor_is_left_out_aloud() -> None:
    printed, said = run("--table", str(TABLE), "gemini/gemini-2.5-flash")
    assert json.loads(printed)["prices"]["gemini"]["gemini-2.5-flash"]["service_tiers"] == {"priority": 1.8}
    for tier in ("flex", "batch"):
        assert f"gemini/gemini-2.5-flash: its prices for {tier} service are no single factor" in said


def test_a_service_tier_has_one_factor_for_long_requests_too(tmp_path: pathlib.Path) -> None:
    assert of("openai/gpt-6-sol")["service_tiers"] == {"priority": 2}
    table = table_with(tmp_path, "gpt-6-sol", output_cost_per_token_above_272k_tokens_priority=4e-05)
    printed, said = run("--table", table, "openai/gpt-6-sol")
    assert "service_tiers" not in json.loads(printed)["prices"]["openai"]["gpt-6-sol"]
    assert "for priority service are no single factor" in said


def test_fees_that_depend_on_the_size_of_a_search_are_left_out_aloud() -> None:
    printed, said = run("--table", str(TABLE), "perplexity/sonar-pro")
    assert json.loads(printed)["prices"]["perplexity"]["sonar-pro"] == {"input": 3, "output": 15}
    assert "perplexity/sonar-pro: its fees per search in the web" in said


def test_fees_of_an_entry_are_in_dollars_per_call(tmp_path: pathlib.Path) -> None:
    own = {"file_search_cost_per_1k_calls": 2.5, "code_interpreter_cost_per_session": 0.05}
    printed, _ = run("--table", table_with(tmp_path, "gpt-5.4-mini", **own), "openai/gpt-5.4-mini")
    calls = json.loads(printed)["prices"]["openai"]["gpt-5.4-mini"]["calls"]
    assert calls == {"web_search": 0.01, "file_search": 0.0025, "code_interpreter": 0.05}
    assert "calls" not in of("openai/text-embedding-3-small"), "it runs no tools"


def test_decimals_are_written_as_decimals() -> None:
    printed, _ = run("--table", str(TABLE), "novita/nvidia/nemotron-3-nano-30b-a3b", "openai/text-embedding-3-small")
    assert '{"input": 0.05, "output": 0.2}' in printed
    assert '{"input": 0.02, "output": 0}' in printed


def test_a_tier_for_long_requests_has_all_rates_of_its_suffix() -> None:
    assert of("openai/gpt-6-sol") == {
        "input": 2,
        "cached_input": Decimal("0.2"),
        "cache_write": Decimal("2.5"),
        "output": 10,
        "calls": {"code_interpreter": Decimal("0.03")},
        "service_tiers": {"priority": 2},
        "above": [{"tokens": 272000, "input": 4, "cached_input": Decimal("0.4"), "cache_write": 5, "output": 15}],
    }


def test_ranges_become_tiers_above_the_end_of_the_one_before() -> None:
    price = of("dashscope/qwen3-coder-plus")
    assert (price["input"], price["cached_input"], price["output"]) == (1, Decimal("0.1"), 5)
    assert [(tier["tokens"], tier["input"], tier["output"]) for tier in price["above"]] == [
        (32000, Decimal("1.8"), 9),
        (128000, 3, 15),
        (256000, 6, 60),
    ]


def test_reasoning_is_named_only_where_it_costs_something_else() -> None:
    assert of("dashscope/qwen-turbo") == {"input": Decimal("0.05"), "output": Decimal("0.2"), "reasoning": Decimal("0.5")}


def test_a_fee_per_request_stays_in_dollars() -> None:
    assert of("perplexity/pplx-7b-online") == {"input": 0, "output": Decimal("0.28"), "request": Decimal("0.005")}


def test_cache_writes_at_no_price_are_input() -> None:
    assert "cache_write" not in of("vercel_ai_gateway/openai/gpt-4.1")


def test_off_peak_hours_become_windows_and_the_price_is_that_of_the_peak() -> None:
    price = of("deepseek/deepseek-flash")
    assert price["input"] == Decimal("0.3")
    half = Decimal("0.5")
    assert price["windows"] == [
        {"days": WORKDAYS, "from": "00:00", "to": "01:00", "multiply": half},
        {"days": WORKDAYS, "from": "04:00", "to": "06:00", "multiply": half},
        {"days": WORKDAYS, "from": "10:00", "to": "24:00", "multiply": half},
        {"days": ["sat", "sun"], "from": "00:00", "to": "24:00", "multiply": half},
    ]


def table_with(tmp_path: pathlib.Path, name: str, **changes: Any) -> str:
    """A table with one entry of the sample, changed."""
    entry = {**json.loads(TABLE.read_text())[name], **changes}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({name: entry}))
    return str(path)


def test_off_peak_hours_across_midnight_are_those_of_the_same_days(tmp_path: pathlib.Path) -> None:
    flash = json.loads(TABLE.read_text())["deepseek/deepseek-flash"]
    block = {**flash["off_peak_pricing"], "windows": [{"hours_utc": "16:30-00:30", "weekdays": [1, "Sunday"]}]}
    table = table_with(tmp_path, "deepseek/deepseek-flash", off_peak_pricing=block)
    printed, _ = run("--table", table, "deepseek/deepseek-flash")
    windows = json.loads(printed)["prices"]["deepseek"]["deepseek-flash"]["windows"]
    assert [(window["days"], window["from"], window["to"]) for window in windows] == [
        (["mon", "sun"], "16:30", "24:00"),
        (["mon", "sun"], "00:00", "00:30"),
    ]


@pytest.mark.parametrize(
    "change",
    [{"output_cost_per_token": 7e-07}, {"cache_read_input_token_cost": None}, {"weekday_timezone": "Asia/Shanghai"}],
)
def test_off_peak_prices_that_are_no_factor_in_utc_are_left_out_aloud(
    tmp_path: pathlib.Path, change: dict[str, Any]
) -> None:
    flash = json.loads(TABLE.read_text())["deepseek/deepseek-flash"]
    table = table_with(tmp_path, "deepseek/deepseek-flash", off_peak_pricing={**flash["off_peak_pricing"], **change})
    printed, said = run("--table", table, "deepseek/deepseek-flash")
    assert "windows" not in json.loads(printed)["prices"]["deepseek"]["deepseek-flash"]
    assert "deepseek/deepseek-flash: its off-peak prices" in said


def test_a_date_is_when_the_price_begins() -> None:
    assert of("openai/gpt-5.4-mini", "--date", "2026-10-01")["from"] == "2026-10-01"
    _, said = run("--table", str(TABLE), "openai/gpt-5.4-mini", "--date", "1.10.2026", status=2)
    assert "expected a date" in said


def test_a_model_belongs_to_its_vendor_unless_another_is_named() -> None:
    _, said = run("--table", str(TABLE), "shareai/gpt-5.4-mini", status=1)
    assert "shareai/gpt-5.4-mini: not found; openai has a model of that name" in said
    both = ["--as", "shareai=deepseek", "--as", "shareai=openai"]
    prices = imported(*both, "shareai/gpt-5.4-mini", "shareai/deepseek-flash")
    assert list(prices["shareai"]) == ["gpt-5.4-mini", "deepseek-flash"]
    assert imported("--as", "shareai=*", "shareai/gemini-2.5-pro")["shareai"]["gemini-2.5-pro"]["output"] == 10
    # LiteLLM divides some vendors.
    assert imported("--as", "google=vertex_ai", "google/gemini-2.5-pro")["google"]["gemini-2.5-pro"]["output"] == 10


def test_the_list_of_all_providers_is_asked_for_with_a_star() -> None:
    assert list(imported("*/gpt-5.4-mini")) == ["*"]


def test_what_has_no_price_is_told_and_fails_unless_it_may_be_missing() -> None:
    wanted = ["openai/gpt-5.4-mini", "openai/gpt-99", "chatgpt/gpt-6.1-terra", "openai/sample_spec"]
    printed, said = run("--table", str(TABLE), *wanted, status=1)
    assert list(json.loads(printed)["prices"]) == ["openai"], "what was found is printed all the same"
    assert "openai/gpt-99: not found\n" in said
    assert "chatgpt/gpt-6.1-terra: the table has no price per token for it" in said
    assert "openai/sample_spec: not found" in said, "an explanation in the table is no model"
    run("--table", str(TABLE), *wanted, "--allow-missing")


CONFIGURATION = {
    "providers": {
        "openai": {"models": {"assistant": "gpt-5.4-mini", "big": {"name": "gpt-6-sol", "context": 922000}}},
        "deepseek": {"models": {"assistant": {"name": "deepseek-flash", "price": {"input": 1, "output": 2}}}},
        "grid": {"models": {"*": "*", "text-embedding-3-small": "*"}},
    },
    "prices": {"grid": {"gpt-6-sol": {"input": 9, "output": 9}}, "*": {"gpt-5.4-mini": {"input": 9, "output": 9}}},
}


def check_configuration(path: pathlib.Path) -> None:
    printed, said = run("--table", str(TABLE), "--config", str(path), "--as", "grid=openai")
    prices = json.loads(printed)["prices"]
    assert {provider: list(models) for provider, models in prices.items()} == {
        "openai": ["gpt-5.4-mini", "gpt-6-sol"],
        "grid": ["text-embedding-3-small", "gpt-6-sol"],
        "*": ["gpt-5.4-mini"],
    }
    assert prices["grid"]["gpt-6-sol"]["input"] == 2, "an older price is not kept"
    assert 'grid: "*" names no model' in said
    assert "deepseek/deepseek-flash: has a price of its own" in said


def test_the_models_of_a_configuration_are_found(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "shunt.json"
    path.write_text(json.dumps(CONFIGURATION))
    check_configuration(path)


def test_a_diff_says_what_an_import_changes(tmp_path: pathlib.Path) -> None:
    old = {
        "openai": {
            "gpt-5.4-mini": {
                "input": 0.75, "cached_input": 0.08, "output": 4.50, "calls": {"web_search": 0.01, "file_search": 0.0025},
                "service_tiers": {"flex": 0.5, "priority": 2, "batch": 0.5},
            },
            "gpt-6-sol": [
                {"from": "2026-10-01", "input": 2, "cached_input": 0.2, "cache_write": 2.5, "output": 10,
                 "service_tiers": {"priority": 2}, "above": [{"tokens": 272000, "input": 3}]},
                {"from": "2025-10-01", "input": 9, "output": 9},
            ],
        }
    }
    path = tmp_path / "shunt.json"
    path.write_text(json.dumps({"providers": {"deepseek": {"models": {"assistant": "deepseek-flash"}}}, "prices": old}))
    printed, _ = run("--table", str(TABLE), "--config", str(path), "--date", "2026-10-01", "--diff")
    lines = printed.splitlines()
    assert sorted(line for line in lines if line.startswith("openai/")) == [
        "openai/gpt-5.4-mini: cached_input: 0.08 -> 0.075",
        "openai/gpt-5.4-mini: calls.code_interpreter: nothing -> 0.03",
        "openai/gpt-5.4-mini: calls.file_search: 0.0025 -> nothing",
        'openai/gpt-5.4-mini: from: nothing -> "2026-10-01"',
        "openai/gpt-6-sol: above[272000].cache_write: nothing -> 5",
        "openai/gpt-6-sol: above[272000].cached_input: nothing -> 0.4",
        "openai/gpt-6-sol: above[272000].input: 3 -> 4",
        "openai/gpt-6-sol: above[272000].output: nothing -> 15",
        "openai/gpt-6-sol: calls.code_interpreter: nothing -> 0.03",
    ]
    assert "deepseek/deepseek-flash: input: nothing -> 0.3" in lines
    # What was imported differs in nothing.
    imported_ = json.loads(run("--table", str(TABLE), "--config", str(path))[0])
    path.write_text(json.dumps({"providers": {}, **imported_}))
    assert run("--table", str(TABLE), "--config", str(path), "--diff")[0] == ""
    _, said = run("--table", str(TABLE), "--diff", "openai/gpt-5.4-mini", status=2)
    assert "--diff needs a --config" in said


def test_the_models_of_a_configuration_inside_envoys_yaml_are_found(tmp_path: pathlib.Path) -> None:
    yaml = pytest.importorskip("yaml")
    plugin = {"configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(CONFIGURATION)}}
    path = tmp_path / "listeners.yaml"
    path.write_text(yaml.safe_dump({"resources": [{"filters": [{"name": "other"}, {"config": plugin}]}]}))
    check_configuration(path)


def test_the_shipped_envoy_configuration_is_read() -> None:
    pytest.importorskip("yaml")
    prices = imported("--config", str(ROOT / "envoy" / "listeners.yaml"))
    assert {provider: list(models) for provider, models in prices.items()} == {
        "openai": ["gpt-5.4-mini"],
        "deepseek": ["deepseek-flash"],
    }


def test_without_pyyaml_it_says_what_to_do(tmp_path: pathlib.Path) -> None:
    (tmp_path / "yaml.py").write_text("raise ImportError\n")
    _, said = run("--table", str(TABLE), "--config", str(ROOT / "envoy" / "listeners.yaml"), status=2, path=tmp_path)
    assert "PyYAML" in said and "pip install" in said and "Traceback" not in said


def test_the_installed_packages_table_is_read_without_importing_it(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "litellm"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "model_prices_and_context_window_backup.json").write_bytes(TABLE.read_bytes())
    printed, _ = run("--package", "openai/gpt-5.4-mini", path=tmp_path)
    assert json.loads(printed)["prices"]["openai"]["gpt-5.4-mini"]["output"] == 4.5


def test_a_missing_package_is_told() -> None:
    _, said = run("--package", "openai/gpt-5.4-mini", status=2, flags=("-I", "-S"))
    assert "litellm is not installed" in said


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.json", None, "No such file"),
        ("broken.json", "{", "no JSON"),
        ("other.json", '{"models": []}', "holds no configuration of Shunt"),
    ],
)
def test_a_configuration_that_is_none_is_told(
    tmp_path: pathlib.Path, name: str, text: Optional[str], message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    _, said = run("--table", str(TABLE), "--config", str(tmp_path / name), status=2)
    assert message in said and "Traceback" not in said


def test_a_table_that_is_none_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "table.json").write_text("[]")
    for name in ("table.json", "nothing.json"):
        _, said = run("--table", str(tmp_path / name), "openai/gpt-5.4-mini", status=2)
        assert name in said and "Traceback" not in said


@pytest.mark.parametrize("arguments", [(), ("gpt-5.4-mini",), ("--as", "openai", "openai/gpt-5.4-mini")])
def test_a_wrong_command_line_is_told(arguments: tuple[str, ...]) -> None:
    _, said = run("--table", str(TABLE), *arguments, status=2)
    assert "import-prices.py: error" in said
