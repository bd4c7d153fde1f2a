"""The files that operators deploy, checked against the programs that read them; none of those is started."""

from __future__ import annotations

import ast
import gzip
import importlib
import inspect
import json
import os
import re
import shlex
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from ray._private import ray_constants
from ray._private.telemetry.open_telemetry_metric_recorder import OpenTelemetryMetricRecorder
from ray.serve._private.constants import RAY_SERVE_HAPROXY_MAXCONN
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from serve_app.deployments import metrics
from serve_app.launch.command import HEAD_TIMEOUT
from serve_app.models.openmp import PASSIVE
from serve_app.settings.deployment_settings import DeploymentSettings
from serve_app.settings.environment import ENVIRONMENT
from serve_app.settings.service_settings import Settings

ROOT = Path(__file__).parents[2]
MANIFESTS = {doc["kind"]: doc for doc in yaml.safe_load_all((ROOT / "configs/kuberay/rayservice.yaml").read_text())}
RAY_SERVICE = MANIFESTS["RayService"]
CLUSTER = RAY_SERVICE["spec"]["rayClusterConfig"]
(WORKERS,) = CLUSTER["workerGroupSpecs"]
PODS = {"head": CLUSTER["headGroupSpec"]["template"]["spec"], "worker": WORKERS["template"]["spec"]}
SERVE = {
    path.name: yaml.safe_load(path.read_text())
    for path in [ROOT / "serve_config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]
} | {"rayservice.yaml": yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"])}
MANY_NODES = ["cluster.yaml", "rayservice.yaml"]

every_config = pytest.mark.parametrize("name", SERVE)
every_pod = pytest.mark.parametrize("pod", PODS)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)


def settings_of(name: str) -> Settings:
    (application,) = SERVE[name]["applications"]
    return Settings(**application["args"])


def container_of(pod: str) -> dict[str, Any]:
    (container,) = PODS[pod]["containers"]
    return container


def environment_of(pod: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container_of(pod)["env"]}


def serve_env() -> dict[str, str]:
    words = shlex.split((ROOT / "configs/serve.env").read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)


# ---------------------------------------------------------------- Serve configs


def unknown_to_pydantic(model: type[BaseModel], value: dict[str, Any], path: str = "") -> list[str]:
    """Keys that the model would ignore, with those of the models inside it."""
    unknown = [path + key for key in value.keys() - model.model_fields.keys()]
    for key in value.keys() & model.model_fields.keys():
        annotation = model.model_fields[key].annotation
        for inner in (annotation, *get_args(annotation)):
            if inspect.isclass(inner) and issubclass(inner, BaseModel):
                parts = value[key] if isinstance(value[key], list) else [value[key]]
                unknown += [name for part in parts for name in unknown_to_pydantic(inner, part, f"{path}{key}.")]
    return unknown


@every_config
def test_every_config_is_accepted_by_serve_without_ignored_fields(name: str) -> None:
    ServeDeploySchema.model_validate(SERVE[name])
    assert unknown_to_pydantic(ServeDeploySchema, SERVE[name]) == []


def test_a_misspelt_field_of_a_serve_config_is_found() -> None:
    config = {"applications": [{"import_path": "a:b", "route_prefx": "/"}], "http_options": {"prt": 1}}
    ServeDeploySchema.model_validate(config)
    assert sorted(unknown_to_pydantic(ServeDeploySchema, config)) == ["applications.route_prefx", "http_options.prt"]


@every_config
def test_every_config_gives_the_application_builder_what_it_takes(name: str) -> None:
    (application,) = SERVE[name]["applications"]
    module, _, builder = application["import_path"].partition(":")
    hints = get_type_hints(getattr(importlib.import_module(module), builder))
    assert hints["settings"] is Settings
    assert settings_of(name).models[0].name == application["args"]["models"][0]["name"]


@every_config
def test_every_autoscaling_config_is_serves_own(name: str) -> None:
    settings = settings_of(name)
    deployments: list[DeploymentSettings] = [settings.ingress, *settings.models]
    for deployment in deployments:
        scaling = deployment.autoscaling_config
        if scaling is not None:
            AutoscalingConfig(**scaling)
            assert unknown_to_pydantic(AutoscalingConfig, scaling) == []
            assert scaling["target_ongoing_requests"] < deployment.max_ongoing_requests


@every_config
def test_no_request_waits_outside_of_an_http_replica_where_ray_reads_its_body_without_a_bound(name: str) -> None:
    assert settings_of(name).ingress.max_ongoing_requests > RAY_SERVE_HAPROXY_MAXCONN


def min_replicas(deployment: DeploymentSettings) -> int:
    return int((deployment.autoscaling_config or {}).get("min_replicas", deployment.num_replicas))


@pytest.mark.parametrize("name", ["gpu.yaml", *MANY_NODES])
def test_in_production_one_ingress_replica_may_die(name: str) -> None:
    assert min_replicas(settings_of(name).ingress) >= 2


@pytest.mark.parametrize("name", MANY_NODES)
def test_on_many_nodes_one_encoder_replica_may_die(name: str) -> None:
    assert all(min_replicas(model) >= 2 for model in settings_of(name).models)


@pytest.mark.parametrize("name", MANY_NODES)
def test_on_many_nodes_a_dead_one_leaves_half_of_each_deployment_and_a_redeploy_starts_new_replicas_first(
    name: str,
) -> None:
    settings = settings_of(name)
    for deployment in [settings.ingress, *settings.models, *settings.rerankers]:
        assert isinstance(deployment.max_replicas_per_node, int), "what the settings state, not the nodes of the moment"
        assert deployment.max_replicas_per_node <= min_replicas(deployment) / 2
        assert deployment.max_surge_percent == "auto" or deployment.max_surge_percent > 0


def test_on_kubernetes_all_replicas_find_a_pod() -> None:
    settings = settings_of("rayservice.yaml")
    for deployment in [settings.ingress, *settings.models]:
        per_pod = deployment.max_replicas_per_node
        assert isinstance(per_pod, int)
        assert min_replicas(deployment) <= per_pod * WORKERS["minReplicas"]
        assert deployment.max_replicas <= per_pod * WORKERS["maxReplicas"]


def test_on_kubernetes_a_redeploy_finds_room_though_it_does_not_ask_what_is_there() -> None:
    (model,), pods = settings_of("rayservice.yaml").models, WORKERS["maxReplicas"]
    assert model.max_surge_percent != "auto", "the autoscaler adds the pod"
    assert model.max_replicas + 1 <= pods


@pytest.mark.parametrize("name", ["serve_config.yaml", "container.yaml", "gpu.yaml"])
def test_serving_leaves_a_fine_tune_its_share_of_one_gpu(name: str) -> None:
    settings = settings_of(name)

    def share(auto: float, said: float | str) -> float:
        return auto if said == "auto" else float(said)

    serving = sum(min_replicas(m) * share(m.gpu_share, m.num_gpus) for m in (*settings.models, *settings.rerankers))
    training = settings.training
    assert serving + training.num_workers * share(training.gpu_share, training.gpus_per_worker) <= 1


@pytest.mark.parametrize("name", MANY_NODES)
def test_where_nodes_join_later_no_share_of_a_gpu_is_guessed(name: str) -> None:
    assert all(model.num_gpus != "auto" for model in settings_of(name).models)


@pytest.mark.parametrize("name", ["container.yaml", "gpu.yaml", *MANY_NODES])
def test_a_deployed_service_can_be_reached_from_outside(name: str) -> None:
    assert SERVE[name]["http_options"] == {"host": "0.0.0.0", "port": 8000}
    assert SERVE[name]["proxy_location"] == "EveryNode"


# ---------------------------------------------------------------- container


def dockerfile() -> list[tuple[str, str]]:
    """Instruction and its arguments, lines joined, without comments."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", "").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def arguments_of(instruction: str) -> list[str]:
    return [arguments for word, arguments in dockerfile() if word == instruction]


def image_env() -> dict[str, str]:
    return dict(pair.split("=", 1) for arguments in arguments_of("ENV") for pair in shlex.split(arguments))


def test_the_image_starts_ray_with_the_fast_environment() -> None:
    serve = {name: value for name, value in image_env().items() if name.startswith("RAY_")}
    assert serve | HEAD_TIMEOUT == serve_env()  # the entry point sets what an image can not
    assert not HEAD_TIMEOUT.keys() & serve.keys()
    assert PASSIVE.items() <= image_env().items()


def test_the_container_does_not_run_as_root() -> None:
    user, group = map(int, arguments_of("USER")[-1].split(":"))
    assert user > 0
    assert group > 0
    assert any(f"--uid {user} " in run for run in arguments_of("RUN"))
    assert any(f"chown {user}:{group} /app/models" in run for run in arguments_of("RUN"))


def test_everything_the_image_copies_is_there_and_is_not_ignored() -> None:
    ignored, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    sources = [source for arguments in arguments_of("COPY") for source in arguments.split()[:-1]]
    assert {"serve_app", "configs"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in rest


def test_dependencies_are_installed_with_hashes_before_the_source_is_copied() -> None:
    instructions = dockerfile()
    install = next(i for i, (word, rest) in enumerate(instructions) if word == "RUN" and "pip install" in rest)
    source = instructions.index(("COPY", "serve_app serve_app"))
    assert install < source
    commands = re.findall(r"pip install [^;&]*", instructions[install][1])
    hashed = [command for command in commands if "--require-hashes" in command]
    assert [command.split()[-1] for command in hashed] == ["requirements-torch.lock", "requirements.lock"]
    (torch,) = set(commands) - set(hashed)
    assert torch.split()[-3:] == ["--constraint", "constraints.txt", "torch"]


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of a lock file."""
    entries = re.findall(r"^([a-z0-9-]+)==(\S+)([^\n]*(?:\n    [^\n]*)*)", (ROOT / name).read_text(), re.MULTILINE)
    return {
        package: (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", rest)) for package, version, rest in entries
    }


def test_the_lock_files_hold_the_hashes_of_every_dependency_at_the_pinned_version() -> None:
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower(): line.partition("==")[2].split()[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    rest, torch = locked("requirements.lock"), locked("requirements-torch.lock")
    assert not rest.keys() & torch.keys()
    both = rest | torch
    assert all(hashes for _, hashes in both.values())
    different = {name: version for name, (version, _) in both.items() if pinned.get(name, version) != version}
    assert different == {}
    unpinned = {name for name in rest if name not in pinned}
    assert unpinned <= {"colorama", "httpx2-jsfetch", "tzdata", "setuptools"}, (
        "other platforms, and what pip freeze leaves out"
    )
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[\[>=<]", dependency)[0] for dependency in wanted} <= both.keys()


def test_the_container_is_healthy_when_a_forward_succeeds() -> None:
    options, _, command = arguments_of("HEALTHCHECK")[0].partition("CMD ")
    python, flag, code = json.loads(command)
    assert (python, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{SERVE['container.yaml']['http_options']['port']}/readyz" in code
    start_minutes = int(re.search(r"--start-period=(\d+)m", options)[1])  # type: ignore[index]
    assert start_minutes >= 10, "the first start downloads the model"


def test_signals_reach_the_service_and_not_a_shell() -> None:
    (entry,), (command,) = arguments_of("ENTRYPOINT"), arguments_of("CMD")
    python, flag, module = json.loads(entry)
    assert (python, flag) == ("python", "-m")
    assert (ROOT / module / "__main__.py").is_file()
    assert json.loads(command) == ["configs/container.yaml"]
    assert (ROOT / "configs/container.yaml").is_file()


def test_models_and_downloads_stay_in_the_volume() -> None:
    assert arguments_of("VOLUME") == ["/app/models"]
    assert image_env()["MODELS_DIR"] == "/app/models"
    for variable in ("HF_HOME", "JOBS_DIR"):
        assert Path(image_env()[variable]).is_relative_to("/app/models")
    assert arguments_of("EXPOSE") == ["8000 8265"]


# ---------------------------------------------------------------- Kubernetes


SCHEMA = json.loads(gzip.decompress((ROOT / "tests/data/rayservice.v1.schema.json.gz").read_bytes()))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def unknown_to_schema(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Fields that a cluster would drop without a word."""
    if isinstance(value, list):
        return [name for part in value for name in unknown_to_schema(schema.get("items", {}), part, path)]
    known = schema.get("properties")
    if not isinstance(value, dict) or known is None:
        return []
    unknown = [f"{path}.{key}" for key in value if key not in known]
    return unknown + [
        name for key in value if key in known for name in unknown_to_schema(known[key], value[key], f"{path}.{key}")
    ]


def test_the_ray_service_is_one_that_kuberay_accepts_whole() -> None:
    VALIDATOR.validate(RAY_SERVICE)
    assert RAY_SERVICE["apiVersion"] == "ray.io/v1"
    assert unknown_to_schema(SCHEMA, RAY_SERVICE) == []


def test_a_misspelt_field_deep_in_a_pod_is_found() -> None:
    manifest = json.loads(json.dumps(RAY_SERVICE))
    pod = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    pod["containers"][0]["readinesProbe"] = {}
    VALIDATOR.validate(manifest)
    (name,) = unknown_to_schema(SCHEMA, manifest)
    assert name.endswith(".containers.readinesProbe")
    pod["terminationGracePeriodSeconds"] = "soon"
    with pytest.raises(jsonschema.ValidationError, match="soon"):
        VALIDATOR.validate(manifest)


@every_pod
def test_every_container_starts_ray_with_the_fast_environment(pod: str) -> None:
    serve = {name: value for name, value in environment_of(pod).items() if name.startswith("RAY_")}
    assert serve == serve_env()
    assert PASSIVE.items() <= environment_of(pod).items()


@every_pod
def test_on_kubernetes_the_serve_config_decides_which_model_runs(pod: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (image_env() | environment_of(pod)).items():
        if name in ENVIRONMENT:
            monkeypatch.setenv(name, value)
    (application,) = SERVE["rayservice.yaml"]["applications"]
    other = application["args"]["models"][0] | {"name": "another/e5-model"}
    assert Settings(**(application["args"] | {"models": [other]})).models[0].name == "another/e5-model"


def test_the_manifest_names_the_ray_that_is_in_the_image() -> None:
    assert f"ray=={CLUSTER['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert container_of("head")["image"] == container_of("worker")["image"]


@every_pod
def test_every_pod_mounts_the_models_where_the_service_looks(pod: str) -> None:
    (mount,) = container_of(pod)["volumeMounts"]
    (volume,) = PODS[pod]["volumes"]
    assert mount["name"] == volume["name"]
    assert mount["mountPath"] == image_env()["MODELS_DIR"] == str(settings_of("rayservice.yaml").models_dir)
    claim = MANIFESTS["PersistentVolumeClaim"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@every_pod
def test_every_pod_is_locked_down_and_runs_as_the_user_of_the_image(pod: str) -> None:
    security = PODS[pod]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == arguments_of("USER")[-1]
    assert security["fsGroup"] == security["runAsGroup"]
    for locked in (container_of(pod)["securityContext"], CLUSTER["autoscalerOptions"]["securityContext"]):
        assert locked == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_serve_never_asks_for_more_than_the_workers_may_have() -> None:
    settings, limits = settings_of("rayservice.yaml"), container_of("worker")["resources"]["limits"]
    pods, gpus, cpus = WORKERS["maxReplicas"], int(limits["nvidia.com/gpu"]), int(limits["cpu"])
    assert sum(model.max_replicas * float(model.num_gpus) for model in settings.models) <= pods * gpus
    deployments = [settings.ingress, *settings.models]
    assert sum(deployment.max_replicas * deployment.num_cpus for deployment in deployments) <= pods * cpus
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_every_worker_that_is_always_there_has_a_replica_and_so_a_proxy() -> None:
    (model,) = settings_of("rayservice.yaml").models
    gpus = int(container_of("worker")["resources"]["limits"]["nvidia.com/gpu"])
    assert min_replicas(model) * float(model.num_gpus) == WORKERS["minReplicas"] * gpus
    assert WORKERS["replicas"] == WORKERS["minReplicas"]


def test_a_stopping_worker_has_time_to_finish_its_requests() -> None:
    _, seconds = container_of("worker")["lifecycle"]["preStop"]["exec"]["command"]
    needed_s = int(seconds) + ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    assert PODS["worker"]["terminationGracePeriodSeconds"] > needed_s


@every_pod
def test_no_probe_is_left_to_the_operator_or_needs_wget(pod: str) -> None:
    container = container_of(pod)
    agent = {"path": "/api/healthz", "port": ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT}
    assert container["livenessProbe"]["httpGet"] == agent
    assert pod == "worker" or container["readinessProbe"]["httpGet"] == agent
    assert "wget" not in json.dumps([container["livenessProbe"], container["readinessProbe"]])


class WorkerProbe:
    """Runs the worker's readiness probe with a stand-in for ``python`` that answers by URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        python = folder / "python"
        python.write_text(
            f'#!/bin/sh\nfor path in $(cat {folder}/failing); do case "$2" in *8000$path\\\'*) exit 1;; esac; done\n'
            f'echo "$2" >> {folder}/asked\n'
        )
        python.chmod(stat.S_IRWXU)

    def ready(self, *, failing: str = "") -> bool:
        (self._folder / "failing").write_text(failing)
        shell, flag, script = container_of("worker")["readinessProbe"]["exec"]["command"]
        script = script.replace("/tmp/served", str(self._folder / "served"))
        path = f"{self._folder}:{os.environ['PATH']}"
        return subprocess.run([shell, flag, script], env={"PATH": path}).returncode == 0

    def asked(self) -> list[str]:
        return (self._folder / "asked").read_text().splitlines()


def test_a_worker_is_ready_after_one_forward_and_stays_so_while_its_proxy_works(tmp_path: Path) -> None:
    probe = WorkerProbe(tmp_path)
    assert not probe.ready(failing="/readyz")
    assert not probe.ready(failing="/-/healthz")
    assert probe.ready()
    assert probe.ready(failing="/readyz")
    assert not probe.ready(failing="/-/healthz")


def test_the_worker_probe_runs_python_that_compiles(tmp_path: Path) -> None:
    probe = WorkerProbe(tmp_path)
    assert probe.ready()
    healthz, readyz = probe.asked()
    for code, path in ((healthz, "/-/healthz"), (readyz, "/readyz")):
        compile(code, "readinessProbe", "exec")
        assert f"http://127.0.0.1:{SERVE['rayservice.yaml']['http_options']['port']}{path}'" in code


# ---------------------------------------------------------------- Prometheus and Grafana

DASHBOARD = json.loads((ROOT / "configs/grafana/retrieval.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
SERVE_LABELS = {"application", "deployment", "replica"}


def exported() -> dict[str, set[str]]:
    """Every name that Ray's exporter shows for our metrics, with its labels."""
    names = {}
    for call in ast.walk(ast.parse(inspect.getsource(metrics))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in SUFFIXES:
            name, _, *rest = [node for part in call.args for node in ast.walk(part) if isinstance(node, ast.Constant)]
            labels = {node.value for node in rest if isinstance(node.value, str)} | SERVE_LABELS
            for suffix in SUFFIXES[call.func.id]:
                names[f"ray_{name.value}{suffix}"] = labels | ({"le"} if suffix == "_bucket" else set())
    return names


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_and_label_on_the_dashboard_is_exported(expression: str) -> None:
    used = re.findall(r"\bray_\w+", expression)
    assert used
    for name in used:
        assert name in exported()
    labels = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(", ")}
    for name, selectors in re.findall(r"(\bray_\w+)\{([^}]*)\}", expression):
        labels |= set(re.findall(r"(\w+)=~?\"", selectors))
        assert labels <= exported()[name]


def test_the_choices_of_the_dashboard_come_from_metrics_that_are_exported() -> None:
    queries = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    assert len(queries) == 2
    for query in queries:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()  # type: ignore[union-attr]
        assert label in exported()[name]


def test_ray_exports_metrics_under_the_names_that_the_dashboard_uses() -> None:
    from prometheus_client import REGISTRY, generate_latest

    recorder, tags = OpenTelemetryMetricRecorder(), {"deployment": "d"}
    recorder.register_counter_metric("claimed_texts", "")
    recorder.register_gauge_metric("claimed_backlog", "")
    recorder.register_histogram_metric("claimed_seconds", "", [1.0])
    for name in ("claimed_texts", "claimed_backlog", "claimed_seconds"):
        recorder.set_metric_value(name, tags, 1)
    shown = set(re.findall(r"^(ray_claimed_\w+)\{", generate_latest(REGISTRY).decode(), re.MULTILINE))
    assert shown == {"ray_claimed_texts_total", "ray_claimed_backlog"} | {
        f"ray_claimed_seconds{suffix}" for suffix in SUFFIXES["Histogram"]
    }


def test_prometheus_reads_the_list_of_nodes_that_ray_writes() -> None:
    config = yaml.safe_load((ROOT / "configs/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    ours, of_ray_start = job["file_sd_configs"][0]["files"]
    assert of_ray_start == f"/tmp/ray/{ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE}"
    assert ours == f"/tmp/retrieval-1000/ray/{ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE}"
