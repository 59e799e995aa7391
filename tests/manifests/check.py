"""Checks docker-compose.yml and rendered manifests (the arguments): schemas first, then promises."""

import json
import re
import sys

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.34"

# Kinds of operators, whose schemas are not Kubernetes': tests/foreign/crds.md.
FOREIGN = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def check_compose(path):
    with open(path) as file:
        compose = yaml.safe_load(file)
    with open("tests/foreign/compose-spec.json") as file:
        jsonschema.validate(compose, json.load(file), cls=jsonschema.Draft7Validator)
    services = compose["services"]
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to everybody"
    node = services["fanlight"]
    assert "container_name" not in node and "ports" not in node, "it must scale"
    assert seconds(node["stop_grace_period"]) > seconds(node["environment"]["FANLIGHT_DRAIN"]) + 5


def check_schemas(path, documents):
    for document in documents:
        kind = document["kind"]
        try:
            if (document["apiVersion"], kind) in FOREIGN:
                with open(f"tests/foreign/crds/{kind}.json") as file:
                    jsonschema.validate(document, json.load(file), cls=jsonschema.Draft4Validator)
            else:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except Exception as error:
            sys.exit(f"{path}: {kind}/{document['metadata']['name']}: {error}")


def check_promises(documents):
    def find(kind, name="fanlight"):
        return next((d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name), None)

    deployment = find("Deployment")["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    drain = container["lifecycle"]["preStop"]["sleep"]["seconds"] + seconds(environment["FANLIGHT_DRAIN"]) + 5
    assert pod["terminationGracePeriodSeconds"] > drain, "killed before it has drained"
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez", "a lost Redis must not restart every pod"
    for secret in ("FANLIGHT_API_KEYS", "FANLIGHT_REDIS_URL"):
        assert environment[secret] is None, f"{secret} is in the manifest"
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        find("Service")["spec"]["selector"],
        find("Service", "fanlight-admin")["spec"]["selector"],
        find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector and selector.items() <= labels.items(), f"{selector} does not select the pods"
    if route := find("HTTPRoute"):
        assert all(rule["timeouts"]["request"] == "0s" for rule in route["spec"]["rules"])
    scalers = [d for d in documents if d["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
    assert len(scalers) <= 1 and ("replicas" not in deployment) == bool(scalers), "two owners of the number of pods"
    for scaler in scalers:
        spec = scaler["spec"]
        behavior = spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300, "every pod that goes moves its clients"
        for trigger in spec.get("triggers", []):
            own = f'namespace="{scaler["metadata"]["namespace"]}"'
            assert own in trigger["metadata"]["query"], "it would count the streams of other clusters"


check_compose("docker-compose.yml")
for path in sys.argv[1:]:
    with open(path) as file:
        documents = list(yaml.safe_load_all(file))
    check_schemas(path, documents)
    check_promises(documents)
    print(f"ok: {path.rsplit('/', 1)[-1]}: {len(documents)} objects")
print("ok: docker-compose.yml")
