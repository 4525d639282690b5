#!/usr/bin/env python3
"""Makes `prices` for a configuration of Shunt from the price table that LiteLLM publishes.

    import-prices.py --package --config config.json               the models of a configuration
    import-prices.py --package --config envoy/listeners.yaml      the same, from Envoy's (needs PyYAML)
    import-prices.py --table FILE openai/gpt-5.4-mini             models by name, as PROVIDER/MODEL
    import-prices.py --package '*/gpt-5.4-mini'                   for the list of all providers
    import-prices.py --package --as shareai=openai shareai/gpt-5.4-mini
    import-prices.py --package --config config.json --diff         what would change in its prices

The table is `model_prices_and_context_window_backup.json` of the PyPI package `litellm`. PROVIDER is the name in the
configuration. If LiteLLM calls the vendor otherwise, `--as` says how; `--as shareai=*` takes any vendor's model of that
name, and several are tried in their order.

Printed is a JSON object with the key `prices`; `jq -s '.[0] * .[1]' config.json prices.json` puts it into a
configuration. Read are prices per token (input, cached input, cache writes, also those for an hour, output, reasoning,
audio), tiers for long requests, prices per request, fees per search in the web and per session of a code interpreter,
and factors: for flex, priority and batch service and for off-peak hours, each if all rates change by one factor. Images
are not. Check what you import: the table is kept by volunteers, and your contract may say something else.

Exit status: 0; 1 if a model has no price in the table (unless --allow-missing); 2 if something cannot be read.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import pathlib
import re
import sys
from decimal import Decimal
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Tuple

Json = Any
#: A provider's name in the configuration and its name for a model.
Wanted = Tuple[str, str]

TABLE = "model_prices_and_context_window_backup.json"
#: In place of a provider: all of them.
ALL = "*"
#: Shunt's names and LiteLLM's, without what LiteLLM appends for tiers.
RATES = {
    "input": "input_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "output": "output_cost_per_token",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_output": "output_cost_per_audio_token",
}
#: The service tiers, by the name that vendors tell in an answer, and what LiteLLM appends for them.
SERVICE_TIERS = {"flex": "_flex", "priority": "_priority", "batch": "_batches"}
#: What a kind of token costs if there is no price for it.
WHOLE = {"cached_input": "input", "cache_write": "input", "reasoning": "output"}
MILLION = Decimal(1_000_000)
#: Shunt reads six decimals.
LAST = Decimal("0.000001")
#: The modes of models that run tools.
TALKING = ("chat", "responses")
#: ISO's numbers of the days, from 1.
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def fail(message: str) -> NoReturn:
    print(f"import-prices.py: {message}", file=sys.stderr)
    sys.exit(2)


def say(message: str) -> None:
    print(message, file=sys.stderr)


# --- The table.


def table_of_package() -> pathlib.Path:
    """Where the installed package has its table. Not imported: that takes seconds, and may ask the network."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        fail("the package litellm is not installed for this python: pip install litellm, or give --table FILE")
    return pathlib.Path(spec.origin).parent / TABLE


def read_table(path: pathlib.Path) -> Dict[str, Json]:
    try:
        table = json.loads(path.read_text("utf-8"), parse_float=Decimal, parse_int=Decimal)
    except (OSError, ValueError) as error:
        fail(f"{path}: {error}")
    if not isinstance(table, dict):
        fail(f"{path}: expected an object of models")
    return {name: entry for name, entry in table.items() if isinstance(entry, dict) and name != "sample_spec"}


def belongs(entry: Json, vendor: str) -> bool:
    """LiteLLM divides some vendors: `vertex_ai-language-models`."""
    name = str(entry.get("litellm_provider"))
    return name == vendor or name.startswith(f"{vendor}-")


def find(table: Dict[str, Json], vendors: List[str], model: str) -> Optional[Json]:
    for vendor in vendors:
        if vendor != ALL and f"{vendor}/{model}" in table:
            return table[f"{vendor}/{model}"]
        if model in table and (vendor == ALL or belongs(table[model], vendor)):
            return table[model]
    return None


# --- One price.


def plain(entry: Json, field: str) -> Optional[Decimal]:
    value = entry.get(field)
    return value if isinstance(value, Decimal) and value >= 0 else None


def per_million(value: Decimal) -> Decimal:
    """The table says dollars for one token. Some of its numbers carry the noise of binary fractions."""
    return (value * MILLION).quantize(LAST)


def rates(entry: Json, suffix: str = "") -> Dict[str, Decimal]:
    """What an entry, or a tier of it, says about single tokens.

    The table has many a price of 0 for what the vendor does not sell apart.
    """
    found = {kind: plain(entry, field + suffix) for kind, field in RATES.items()}
    if found["cached_input"] is None and not suffix:
        found["cached_input"] = plain(entry, "input_cost_per_token_cache_hit")
    for kind in ("cache_write", "cache_write_1h", "audio_input", "audio_output"):
        found[kind] = found[kind] or None
    return {kind: per_million(value) for kind, value in found.items() if value is not None}


def without_repeats(price: Dict[str, Decimal]) -> Dict[str, Decimal]:
    """Leaves out what costs as much as what it is part of: that is what Shunt assumes."""
    return {kind: value for kind, value in price.items() if kind not in WHOLE or value != price.get(WHOLE[kind])}


def tiers(entry: Json, base: Dict[str, Decimal]) -> Iterator[Tuple[Dict[str, Decimal], int]]:
    """The rates of long requests, and above how many tokens. Two forms: fields with a suffix, and a list of ranges."""
    thousands = {match.group(1) for match in map(re.compile(r".*_above_(\d+)k_tokens$").match, entry) if match}
    for count in sorted(thousands, key=int):
        tier = rates(entry, f"_above_{count}k_tokens")
        if tier:
            yield tier, int(count) * 1000
    for row in ranges(entry):
        if row["range"][0] > 0:
            tier = rates(row)
            # A row says all of its rates; Shunt would take from the base what it leaves out.
            for kind, whole in WHOLE.items():
                if kind in base and kind not in tier and whole in tier:
                    tier[kind] = tier[whole]
            yield tier, int(row["range"][0])


def ranges(entry: Json) -> List[Json]:
    rows = entry.get("tiered_pricing")
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict) and "range" in row and RATES["input"] in row]


def windows(entry: Json, name: str) -> List[Json]:
    """Off-peak hours as factors. The table's own rates are those of the other hours."""
    off_peak = entry.get("off_peak_pricing")
    if not isinstance(off_peak, dict):
        return []
    usual, cheap = rates(entry), rates(off_peak)
    factors = {(cheap[kind] / usual[kind]).normalize() for kind in cheap if usual.get(kind)}
    same_kinds = {kind for kind in usual if usual[kind]} == {kind for kind in cheap if cheap[kind]}
    in_utc = off_peak.get("weekday_timezone", "UTC") in ("UTC", "Etc/UTC")
    if len(factors) != 1 or not same_kinds or not in_utc or factors != {factor.quantize(LAST) for factor in factors}:
        say(f"{name}: its off-peak prices are no single factor at fixed times in UTC, and are left out")
        return []
    factor = factors.pop()
    rules = list(off_peak.get("windows") or [])
    if off_peak.get("hours_utc"):
        rules.append({"hours_utc": off_peak["hours_utc"]})
    return [
        {**days, "from": start, "to": end, "multiply": factor}
        for rule in rules
        for days in [week(rule.get("weekdays"))]
        for hours in ([rule["hours_utc"]] if isinstance(rule["hours_utc"], str) else rule["hours_utc"])
        for start, end in parts(hours)
    ]


def service_tiers(entry: Json, name: str) -> Json:
    """Factors for the service tiers. A price that the table does not give for a tier is taken to change with the others."""
    found: Json = {}
    for tier, suffix in SERVICE_TIERS.items():
        pairs = [
            (per_million(usual), per_million(own))
            for field in entry
            for usual, own in [(plain(entry, field), plain(entry, field + suffix))]
            if field.startswith(tuple(RATES.values())) and usual and per_million(usual) and own is not None
        ]
        if not pairs or plain(entry, RATES["input"] + suffix) is None:
            continue
        usual, own = pairs[0]
        factor = (own / usual).quantize(LAST)
        if all((usual * factor).quantize(LAST) == own for usual, own in pairs):
            found[tier] = factor
        else:
            say(f"{name}: its prices for {tier} service are no single factor, and are left out")
    return found


def calls(table: Dict[str, Json], entry: Json, name: str) -> Json:
    """The fees for tools that the vendor runs, in dollars per call."""
    found: Json = {}
    by_size = entry.get("search_context_cost_per_query")
    searches = {plain(by_size, size) for size in by_size} if isinstance(by_size, dict) else set()
    if len(searches) > 1:
        say(f"{name}: its fees per search in the web depend on the size of the search, and are left out")
    elif searches and None not in searches:
        found["web_search"] = searches.pop()
    files = plain(entry, "file_search_cost_per_1k_calls")
    if files is not None:
        found["file_search"] = files / 1000
    # Some vendors' sessions have an entry of their own.
    shared = table.get(f"{entry.get('litellm_provider')}/container", {}) if entry.get("mode") in TALKING else {}
    for holder in (entry, shared):
        session = plain(holder, "code_interpreter_cost_per_session")
        if session is not None:
            found.setdefault("code_interpreter", session)
    return found


def week(days: Optional[List[Json]]) -> Json:
    if not days:
        return {}
    return {"days": [DAYS[int(day) - 1] if isinstance(day, Decimal) else str(day)[:3].lower() for day in days]}


def parts(hours: str) -> Iterator[Tuple[str, str]]:
    """LiteLLM counts what is after midnight to the next day, Shunt to the day before: so there are two windows."""
    start, end = (part.strip() for part in hours.split("-"))
    if start < end:
        yield start, end
        return
    yield start, "24:00"
    if end != "00:00" and start != "00:00":
        yield "00:00", end


def price(table: Dict[str, Json], entry: Json, name: str, date: Optional[str]) -> Optional[Json]:
    """An entry of the table as Shunt has it; `None` if it has no price per token."""
    first = next((row for row in ranges(entry) if row["range"][0] == 0), None)
    base = rates(first if first is not None else entry)
    if "input" not in base:
        return None
    if "output" not in base:
        base["output"] = rates(entry).get("output", Decimal(0))
    if not any(base.values()):
        say(f"{name}: free, says the table; so it does of models that are paid for otherwise")
    found: Json = {kind: base[kind] for kind in RATES if kind in without_repeats(base)}
    request = plain(entry, "input_cost_per_request")
    if request:
        found["request"] = request
    fees = calls(table, entry, name)
    if fees:
        found["calls"] = fees
    tiers_of_service = service_tiers(entry, name)
    if tiers_of_service:
        found["service_tiers"] = tiers_of_service
    above = [{"tokens": Decimal(tokens), **tier} for tier, tokens in tiers(entry, base)]
    if above:
        found["above"] = above
    off_peak = windows(entry, name)
    if off_peak:
        found["windows"] = off_peak
    return {"from": date, **found} if date else found


# --- The models.


def read_configuration(path: pathlib.Path) -> Json:
    """Shunt's document: a JSON file of its own, or inside Envoy's YAML."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        fail(f"{path}: {error}")
    try:
        document = json.loads(text)
    except ValueError as error:
        if path.suffix not in (".yaml", ".yml"):
            fail(f"{path}: no JSON ({error}); a YAML of Envoy's ends with .yaml")
        document = read_yaml(path, text)
    found = next(documents(document), None)
    if found is None:
        fail(f'{path}: holds no configuration of Shunt (an object with "providers")')
    return found


def read_yaml(path: pathlib.Path, text: str) -> Json:
    try:
        import yaml
    except ImportError:
        fail(
            f"{path}: reading YAML needs PyYAML, which this python does not have: pip install PyYAML, or use"
            " .venv/bin/python after `make setup`, or give Shunt's own document as JSON"
        )
    try:
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        fail(f"{path}: {error}")


def documents(value: Json) -> Iterator[Json]:
    """Every document of Shunt's within a value: an object with providers, or a text that is one."""
    if isinstance(value, dict):
        providers = value.get("providers")
        if isinstance(providers, dict) and all(isinstance(provider, dict) for provider in providers.values()):
            yield value
        for child in value.values():
            yield from documents(child)
    elif isinstance(value, list):
        for child in value:
            yield from documents(child)
    elif isinstance(value, str) and '"providers"' in value:
        try:
            yield from documents(json.loads(value))
        except ValueError:
            pass


def models(configuration: Json) -> Iterator[Wanted]:
    """The models that a configuration names, and that have no price of their own."""
    for provider, settings in configuration["providers"].items():
        for alias, model in (settings.get("models") or {}).items():
            name = model.get("name") if isinstance(model, dict) else model
            if not isinstance(name, str):
                continue
            if isinstance(model, dict) and "price" in model:
                say(f"{provider}/{name}: has a price of its own, which counts before this one; left out")
            elif name != ALL:
                yield provider, name
            elif alias != ALL:
                yield provider, alias
            else:
                say(f'{provider}: "*" names no model; add those that you use as {provider}/MODEL')
    for provider, prices in (configuration.get("prices") or {}).items():
        for name in prices:
            yield provider, name


def named(text: str) -> Wanted:
    provider, slash, model = text.partition("/")
    if not slash or not provider or not model:
        raise argparse.ArgumentTypeError(f"expected PROVIDER/MODEL, or '*/MODEL' for all providers, found {text!r}")
    return provider, model


# --- What changes.


def decimals(value: Json) -> Json:
    """The value with all of its numbers as decimals."""
    if isinstance(value, dict):
        return {key: decimals(child) for key, child in value.items()}
    if isinstance(value, list):
        return [decimals(child) for child in value]
    return Decimal(str(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def flat(value: Json, path: str = "") -> Dict[str, str]:
    """Every value in a price by its path, such as `above[272000].input`. Numbers are written alike, however they were given."""
    if isinstance(value, dict):
        children = [(f"{path}.{key}" if path else key, child) for key, child in value.items()]
    elif isinstance(value, list) and all(isinstance(child, dict) and "tokens" in child for child in value):
        children = [(f"{path}[{child['tokens']}]", child) for child in value]
    else:
        return {path: shown(decimals(value))}
    return {place: text for name, child in children for place, text in flat(child, name).items()}


def changes(configuration: Json, prices: Dict[str, Dict[str, Json]]) -> Iterator[str]:
    """What an import changes in the prices of a configuration, one value on a line."""
    for provider, found in prices.items():
        for model, new in found.items():
            old = (configuration.get("prices") or {}).get(provider, {}).get(model, {})
            if isinstance(old, list):
                # Dates are written so that they sort as texts.
                old = max(old, key=lambda one: str(one.get("from", "")), default={})
            before, after = flat(old), flat(new)
            for place in dict.fromkeys([*before, *after]):
                if before.get(place) != after.get(place):
                    yield f"{provider}/{model}: {place}: {before.get(place, 'nothing')} -> {after.get(place, 'nothing')}"


# --- The program.


def shown(value: Json) -> str:
    """JSON on one line, with decimals as they are."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {shown(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    return json.dumps(value, ensure_ascii=False)


def printed(prices: Dict[str, Dict[str, Json]]) -> str:
    """One model on a line."""
    blocks = []
    for provider, found in prices.items():
        lines = ",\n".join(f"      {json.dumps(name)}: {shown(one)}" for name, one in found.items())
        blocks.append(f"    {json.dumps(provider)}: {{\n{lines}\n    }}")
    return '{\n  "prices": {\n' + ",\n".join(blocks) + "\n  }\n}"


def alias(text: str) -> Tuple[str, str]:
    provider, equals, vendor = text.partition("=")
    if not equals or not provider or not vendor:
        raise argparse.ArgumentTypeError(f"expected PROVIDER=VENDOR, found {text!r}")
    return provider, vendor


def date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a date such as 2026-10-01, found {text!r}") from None


def arguments(given: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", type=pathlib.Path, metavar="FILE", help="LiteLLM's table")
    source.add_argument("--package", action="store_true", help="the table of the installed package litellm")
    parser.add_argument("--config", type=pathlib.Path, metavar="FILE", help="a configuration of Shunt, or Envoy's YAML")
    parser.add_argument(
        "--as", dest="vendors", type=alias, action="append", default=[], metavar="PROVIDER=VENDOR",
        help="what LiteLLM calls a provider's vendor; may be repeated",
    )
    parser.add_argument("--date", type=date, help="when the prices begin; before it there are none (default: always)")
    parser.add_argument("--allow-missing", action="store_true", help="a model without a price is no failure")
    parser.add_argument("--diff", action="store_true", help="print what would change in the prices of --config instead")
    parser.add_argument("models", nargs="*", type=named, metavar="PROVIDER/MODEL")
    options = parser.parse_args(given)
    if not options.models and options.config is None:
        parser.error("name models, or give a --config that does")
    if options.diff and options.config is None:
        parser.error("--diff needs a --config to compare with")
    return options


def main(given: List[str]) -> int:
    options = arguments(given)
    table = read_table(table_of_package() if options.package else options.table)
    configuration = read_configuration(options.config) if options.config else None
    wanted: List[Wanted] = list(models(configuration)) if configuration else []
    wanted += options.models
    prices: Dict[str, Dict[str, Json]] = {}
    missing = 0
    for provider, model in dict.fromkeys(wanted):
        name = f"{provider}/{model}"
        vendors = [vendor for known, vendor in options.vendors if known == provider] or [provider]
        entry = find(table, vendors, model)
        found = price(table, entry, name, options.date) if entry is not None else None
        if found is not None:
            prices.setdefault(provider, {})[model] = found
            continue
        missing += 1
        if entry is not None:
            say(f"{name}: the table has no price per token for it")
        elif model in table:
            vendor = table[model].get("litellm_provider")
            say(f"{name}: not found; {vendor} has a model of that name (--as '{provider}={vendor}' takes its price)")
        else:
            say(f"{name}: not found")
    if options.diff:
        for line in changes(configuration, prices):
            print(line)
    else:
        print(printed(prices) if prices else '{"prices": {}}')
    return 1 if missing and not options.allow_missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
