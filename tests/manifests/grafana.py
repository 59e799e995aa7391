"""Checks Grafana's dashboards and provisioning: the model that Grafana publishes (grafana-foundation-sdk), the data source, and
each query with promtool."""

import enum
import json
import pathlib
import subprocess
import tempfile
import typing

import yaml
from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus, units

GRAFANA = pathlib.Path("monitoring/grafana")
UNITS = {getattr(units, name) for name in units.__annotations__}
# What Grafana puts in before a query goes to Prometheus.
VARIABLES = {"$__rate_interval": "20s", "$job": ".+", "$instance": ".+"}


def check_types(value, hint, place):
    """That a decoded value has the type that the model says; decoding itself looks at few of them."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (object, typing.Any) or value is None and type(None) in arguments:
        return
    if origin is typing.Union:
        problems = []
        for argument in arguments:
            try:
                return check_types(value, argument, place)
            except AssertionError as error:
                problems.append(error)
        raise problems[0]
    if origin is typing.Literal:
        assert value in arguments, f"{place} is {value!r}, not one of {arguments}"
    elif origin is list:
        assert isinstance(value, list), f"{place} is {value!r}, not a list"
        for index, item in enumerate(value):
            check_types(item, arguments[0], f"{place}[{index}]")
    elif origin is dict:
        assert isinstance(value, dict), f"{place} is {value!r}, not an object"
        for key, item in value.items():
            check_types(item, arguments[1], f"{place}.{key}")
    elif hint is float:
        assert isinstance(value, (int, float)) and not isinstance(value, bool), f"{place} is {value!r}, not a number"
    elif hint in (str, int, bool):
        assert type(value) is hint, f"{place} is {value!r}, not a {hint.__name__}"
    elif issubclass(hint, enum.Enum):
        assert value in list(hint), f"{place} is {value!r}, not one of {list(hint)}"
    else:
        assert isinstance(value, hint), f"{place} is {value!r}, not a {hint.__name__}"
        check_fields(value, place)


def check_fields(value, place):
    for name, hint in typing.get_type_hints(type(value)).items():
        check_types(getattr(value, name), hint, f"{place}.{name}")


def check_known(raw, decoded, place):
    """That nothing of `raw` was dropped or changed by decoding it: an unknown field is."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            assert key in decoded, f"{place} has a field that Grafana does not know: {key}"
            check_known(value, decoded[key], f"{place}.{key}")
    elif isinstance(raw, list):
        assert len(raw) == len(decoded), place
        for index, pair in enumerate(zip(raw, decoded)):
            check_known(*pair, f"{place}[{index}]")
    else:
        assert raw == decoded, f"{place} is {raw!r}, and read as {decoded!r}"


def check_model(raw):
    """Decodes a dashboard as strictly as the model allows."""
    decoded = model.Dashboard.from_json(raw)
    check_known(raw, json.loads(json.dumps(decoded, cls=JSONEncoder)), "dashboard")
    check_fields(decoded, "dashboard")
    return decoded


def check_panel(panel, source):
    place = f"panel {panel.title!r}"
    assert runtime.panelcfg_config(panel.type_val), f"{place}: there is no panel {panel.type_val}"
    assert panel.description and panel.targets, f"{place} says nothing or shows nothing"
    assert (panel.datasource.type_val, panel.datasource.uid) == (source["type"], "$datasource"), f"{place}: data source"
    assert panel.field_config.defaults.unit in UNITS, f"{place}: unit {panel.field_config.defaults.unit}"
    names = [target.ref_id for target in panel.targets]
    assert len(set(names)) == len(names), f"{place}: two targets have a name"
    for target in panel.targets:
        assert isinstance(target, prometheus.Dataquery) and target.expr, f"{place}: a target without a query"


def check_layout(panels):
    taken = {}
    for panel in panels:
        at = panel.grid_pos
        assert at.x + at.w <= 24, f"panel {panel.title!r} leaves the page"
        for square in ((x, y) for x in range(at.x, at.x + at.w) for y in range(at.y, at.y + at.h)):
            other = taken.setdefault(square, panel.title)
            assert other == panel.title, f"panel {panel.title!r} lies on {other!r}"
    assert len({panel.id_val for panel in panels}) == len(panels), "two panels have an id"


def check_variables(variables, source):
    """The one of the data source begins with the provisioned one; the others ask it."""
    first, *others = variables
    assert (first.name, first.type_val, first.query) == ("datasource", "datasource", source["type"])
    assert first.current.value == source["uid"], f"no data source {first.current.value} is provisioned"
    for variable in others:
        assert variable.datasource.uid == "$datasource" and f"${variable.name}" in VARIABLES, variable.name


def check_queries(panels):
    rules = []
    for panel in panels:
        for target in panel.targets:
            query = target.expr
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            assert "$" not in query, f"panel {panel.title!r}: a variable that is not there: {query}"
            rules.append({"record": f"panel{panel.id_val}:{target.ref_id}", "expr": query})
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, file)
        file.flush()
        subprocess.run(["promtool", "check", "rules", file.name], check=True, stdout=subprocess.DEVNULL)
    return len(rules)


def provisioned(folder, key):
    entries = []
    for path in sorted((GRAFANA / "provisioning" / folder).iterdir()):
        content = yaml.safe_load(path.read_text())
        assert content["apiVersion"] == 1
        entries += content[key]
    return entries


def refuses(raw, break_it):
    """That the check is one: it finds what `break_it` does to a good dashboard."""
    broken = json.loads(json.dumps(raw))
    break_it(broken["panels"][0])
    try:
        check_model(broken)
    except (AssertionError, ValueError, TypeError, AttributeError):
        return
    raise AssertionError("a broken panel was found good")


plugins.register_default_plugins()
[source] = provisioned("datasources", "datasources")
with open("monitoring/prometheus/prometheus.yml") as file:
    every = yaml.safe_load(file)["global"]["scrape_interval"]
assert source["jsonData"]["timeInterval"] == every, "rates would be over too little or too much"
[provider] = provisioned("dashboards", "providers")
with open("docker-compose.yml") as file:
    mounts = yaml.safe_load(file)["services"]["grafana"]["volumes"]
assert f"./{GRAFANA}/dashboards:{provider['options']['path']}:ro" in mounts, "the dashboards are not where they are looked for"
for path in sorted((GRAFANA / "dashboards").iterdir()):
    raw = json.loads(path.read_text())
    dashboard = check_model(raw)
    refuses(raw, lambda panel: panel.update(titel="a field that is not there"))
    refuses(raw, lambda panel: panel.update(title=["of another type"]))
    refuses(raw, lambda panel: panel["targets"][0].update(exprs="a field that is not there"))
    refuses(raw, lambda panel: panel["gridPos"].update(w="8"))
    check_variables(dashboard.templating.list_val, source)
    for panel in dashboard.panels:
        check_panel(panel, source)
    check_layout(dashboard.panels)
    print(f"ok: {path.name}: {len(dashboard.panels)} panels, {check_queries(dashboard.panels)} queries")
