"""The compose file, compared with its schema, with the Dockerfile and with the settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.settings import BackendSettings
from ib_host.settings import SIMULATOR, IbHostSettings
from shared import process, security
from shared.rpc import server
from shared.settings import ProcessSettings, SettingsError, load_settings
from tests.support.dockerfile import pip, pip_install, read_images
from tests.support.programs import ROOT, Programs
from training_host.settings import TrainingHostSettings

FILE = ROOT / "docker-compose.yml"
COMPOSE: Mapping[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
ALL: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
SERVICES = {name: service for name, service in ALL.items() if "build" in service}
"""Our own."""
SETTINGS: Mapping[str, type[ProcessSettings]] = {
    "backend": BackendSettings,
    "training_host": TrainingHostSettings,
    "ib_host": IbHostSettings,
}
LISTENS = {service: f"KTRDR_{service.upper()}_ADDRESS" for service in SETTINGS}
IMAGES = read_images()
BARS = "bars"
"""The volume that two services share."""
each_service = pytest.mark.parametrize("service", SERVICES)


def variables(settings: type[ProcessSettings]) -> set[str]:
    """The environment variables that a process reads."""
    return {
        str(field.validation_alias or f"KTRDR_{name.upper()}")
        for name, field in settings.model_fields.items()
    }


def mounts(service: str) -> dict[str, str]:
    """The folder in the container of each volume a service uses, with `:ro` if only to read."""
    split = (volume.partition(":") for volume in SERVICES[service]["volumes"])
    return {volume: folder for volume, _, folder in split}


def interpolated(text: str, **variables: str) -> str:
    """A value as compose passes it on, where only these variables are set."""
    return re.sub(r"\$\{(\w+):-(.*?)\}", lambda found: variables.get(found[1], found[2]), text)


def port(address: str) -> str:
    return address.rpartition(":")[2]


def test_the_dockerfile_is_read_with_all_that_a_target_is_built_from() -> None:
    text = 'FROM a:1 AS b\nENV X=1 Y=2\n# no\nFROM b AS c\nRUN one \\\n    two\nCMD ["x", "y"]\n'
    images = read_images(text)
    assert ["b", "c"] == list(images)
    assert {"X": "1", "Y": "2"} == images["c"].environment
    assert ("one two", ["x", "y"]) == (images["c"].last("RUN"), images["c"].command)


def test_the_file_keeps_to_the_compose_schema() -> None:
    done = subprocess.run(
        [
            *Programs.command("check-jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(FILE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout


def test_there_is_a_service_for_each_process_and_no_other() -> None:
    assert set(SETTINGS) == set(SERVICES)


@each_service
def test_each_service_is_built_from_a_target_that_runs_its_process(service: str) -> None:
    build = SERVICES[service]["build"]
    assert ROOT == (ROOT / build["context"]).resolve()
    assert ["python", "-m", service] == IMAGES[build["target"]].command


@each_service
def test_each_variable_is_one_the_process_reads_and_can_use(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables(SETTINGS[service]):
        monkeypatch.delenv(name, raising=False)
    environment = {**IMAGES[service].environment, **SERVICES[service]["environment"]}
    ours = {name: interpolated(value) for name, value in environment.items() if name != "PATH"}
    assert set() == ours.keys() - variables(SETTINGS[service])
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    load_settings(SETTINGS[service])


@each_service
@pytest.mark.parametrize("said", [True, False])
def test_each_process_listens_to_its_network_because_it_is_told_to(
    service: str, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables(SETTINGS[service]):
        monkeypatch.delenv(name, raising=False)
    address = SERVICES[service]["environment"][LISTENS[service]]
    if said:
        monkeypatch.setenv("KTRDR_INSECURE", SERVICES[service]["environment"]["KTRDR_INSECURE"])
    with nullcontext() if said else pytest.raises(SettingsError, match="other machines"):
        security.server_security(load_settings(SETTINGS[service]), LISTENS[service], address)


@each_service
def test_no_service_runs_as_root(service: str) -> None:
    user = SERVICES[service].get("user", IMAGES[service].last("USER"))
    assert user.partition(":")[0] not in {"", "0", "root"}


@each_service
def test_each_process_keeps_its_files_on_a_volume_of_its_own(service: str) -> None:
    home = IMAGES[service].environment["KTRDR_HOME"]
    assert {f"{service}_home": home} == {
        volume: folder for volume, folder in mounts(service).items() if volume != BARS
    }
    assert home == IMAGES[service].last("VOLUME")


def test_each_volume_is_declared_and_used_by_one_service_but_for_the_bars() -> None:
    used = [volume for service in SERVICES for volume in mounts(service)]
    used += [volume.split(":")[0] for volume in ALL["prometheus"]["volumes"] if volume[0] != "."]
    assert sorted([*COMPOSE["volumes"], BARS]) == sorted(used)


def test_what_the_ib_host_loads_is_what_the_training_host_reads() -> None:
    where = {service: mounts(service)[BARS] for service in SERVICES if BARS in mounts(service)}
    folder = load_settings(IbHostSettings).data_dir.relative_to(load_settings(IbHostSettings).home)
    home = IMAGES["ib_host"].environment["KTRDR_HOME"]
    assert {"ib_host": f"{home}/{folder}", "training_host": f"{home}/{folder}:ro"} == where


@each_service
def test_the_folders_of_new_volumes_are_the_processs_own(service: str) -> None:
    (made,) = re.findall(r"install --directory (.*)", IMAGES[service].each("RUN")[0])
    owner, group, *folders = made.split()
    assert ("--owner=ktrdr", "--group=ktrdr") == (owner, group)
    assert {folder.partition(":")[0] for folder in mounts("ib_host").values()} == set(folders)


@each_service
def test_each_process_is_asked_for_its_health_where_it_listens(service: str) -> None:
    listens = SERVICES[service]["environment"][LISTENS[service]]
    assert ["ktrdr", "health", "--backend", f"127.0.0.1:{port(listens)}"] == (
        IMAGES[service].health_command
    )
    assert port(listens) == IMAGES[service].last("EXPOSE")


def test_the_backend_works_through_the_hosts_and_waits_until_they_are_healthy() -> None:
    environment = SERVICES["backend"]["environment"]
    assert "host" == environment["KTRDR_TRAINING_MODE"]
    assert "ib" == environment["KTRDR_DATA_SOURCE"]
    hosts = ("training_host", "ib_host")
    for host in hosts:
        listens = port(SERVICES[host]["environment"][LISTENS[host]])
        assert f"{host}:{listens}" == environment[f"{host.upper()}_SERVICE_URL"]
    awaited = {host: {"condition": "service_healthy"} for host in hosts}
    assert awaited == SERVICES["backend"]["depends_on"]


def test_the_ib_host_needs_no_account_unless_it_is_given_a_gateway() -> None:
    gateway = SERVICES["ib_host"]["environment"]["KTRDR_IB_GATEWAY"]
    assert SIMULATOR == interpolated(gateway)
    named = "ib_gateway:4004"
    assert named == interpolated(gateway, KTRDR_IB_GATEWAY=named)
    assert f"export KTRDR_IB_GATEWAY={named} " in FILE.read_text("utf-8")


def test_ibs_own_gateway_runs_only_where_it_is_asked_for_and_takes_no_orders() -> None:
    gateway = ALL["ib_gateway"]
    assert ["ib-live"] == gateway["profiles"]
    assert "yes" == gateway["environment"]["READ_ONLY_API"]
    assert "paper" == interpolated(gateway["environment"]["TRADING_MODE"])
    secrets = ("TWS_USERID", "TWS_PASSWORD")
    assert ["", ""] == [interpolated(gateway["environment"][name]) for name in secrets]


def test_only_the_backend_is_published_and_only_on_the_loopback() -> None:
    published = [port for service in SERVICES for port in SERVICES[service].get("ports", ())]
    assert ["127.0.0.1:50051:50051"] == published


def test_what_is_not_ours_runs_only_where_it_is_asked_for() -> None:
    profiles = {name: ALL[name]["profiles"] for name in ALL.keys() - SERVICES.keys()}
    assert {
        "ib_gateway": ["ib-live"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    } == profiles


def test_prometheus_and_grafana_are_published_on_the_loopback_alone() -> None:
    published = [port for name in ("prometheus", "grafana") for port in ALL[name]["ports"]]
    assert ["127.0.0.1:9090:9090", "127.0.0.1:3000:3000"] == published


def test_prometheus_is_told_of_each_process_at_the_port_it_is_told_to_use() -> None:
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    (group,) = job["static_configs"]
    expected = {
        f"{service}:{SERVICES[service]['environment']['KTRDR_METRICS_PORT']}"
        for service in SERVICES
    }
    assert expected == set(group["targets"])


def test_each_file_that_is_mounted_is_there() -> None:
    mounted = [volume.split(":")[0] for name in ALL for volume in ALL[name].get("volumes", ())]
    assert [] == [path for path in mounted if path[0] == "." and not (ROOT / path).exists()]


def test_nobody_can_log_in_to_grafana_with_a_password_that_everybody_knows() -> None:
    environment = ALL["grafana"]["environment"]
    assert "false" == environment["GF_AUTH_BASIC_ENABLED"]
    assert "true" == environment["GF_AUTH_DISABLE_LOGIN_FORM"]
    assert "Viewer" == environment["GF_AUTH_ANONYMOUS_ORG_ROLE"]


@each_service
def test_a_process_may_end_in_order_before_it_is_killed(service: str) -> None:
    settings = SERVICES[service]["environment"]
    default = SETTINGS[service].model_fields["shutdown_grace"].default
    grace = float(settings.get("KTRDR_SHUTDOWN_GRACE", default))
    # What `process.stop` and `RpcServer.stop` wait for at most, one after the other.
    end = process._INTERRUPT_GRACE + process.LAST_LOOK + 1.0 + 3 * server._JOIN
    assert float(SERVICES[service]["stop_grace_period"].removesuffix("s")) > grace + end


def test_each_image_gets_what_its_process_needs_and_no_more() -> None:
    installs = {target: pip_install(IMAGES, target) for target in SERVICES}
    constrained = ["python", "-m", "pip", "install", "--constraint", "constraints.txt"]
    assert {
        "backend": [*constrained, ".[postgres]"],
        "training_host": [*constrained, ".[training,postgres]"],
        "ib_host": [*constrained, ".[ib,postgres]"],
    } == installs


@each_service
def test_a_change_of_the_code_installs_no_dependency_anew(service: str) -> None:
    environment = IMAGES[f"{service}_environment"]
    assert ["constraints.txt pyproject.toml ./"] == environment.each("COPY")


@each_service
def test_each_image_gets_ktrdr_itself_last_and_only_root_may_change_it(service: str) -> None:
    *_, folder, source = pip(IMAGES["package"], "wheel")
    assert ("/wheel", ".") == (folder, source)
    image = IMAGES[service]
    assert image.last("RUN").startswith("--mount=from=package,source=/wheel,target=/wheel ")
    assert "/wheel/*.whl" == pip(image, "install")[-1]
    words = [word for word, _ in image.instructions]
    assert words.index("USER") > max(at for at, word in enumerate(words) if word == "RUN")


# ------------------------------------------------------------ the production plan's override

OVERRIDE: Mapping[str, Any] = yaml.safe_load(
    re.findall(
        r"^```yaml\n(.*?)^```",
        (ROOT / "docs/architecture/operations/production.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )[0]
)


def test_the_override_of_the_production_plan_keeps_to_the_schema(tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.override.yml"
    file.write_text(yaml.safe_dump(OVERRIDE), "utf-8")
    done = subprocess.run(
        [
            *Programs.command("check-jsonschema"),
            "--builtin-schema",
            "vendor.compose-spec",
            str(file),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout


@each_service
def test_the_override_of_the_production_plan_secures_a_service(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        **SERVICES[service]["environment"],
        **OVERRIDE["services"][service]["environment"],
    }
    assert set() == set(environment) - variables(SETTINGS[service])
    for name, value in environment.items():
        monkeypatch.setenv(name, interpolated(str(value)))

    settings = load_settings(SETTINGS[service])

    assert not settings.insecure
    assert None not in {settings.tls_cert, settings.tls_key, settings.tokens_file, settings.tls_ca}
    assert (settings.token_file is not None) == (service == "backend")


def test_the_override_of_the_production_plan_mounts_its_files_where_no_volume_is() -> None:
    for service in SERVICES:
        (mounted,) = OVERRIDE["services"][service]["volumes"]
        folder = mounted.split(":")[1]
        assert folder not in mounts(service).values()
        files = OVERRIDE["services"][service]["environment"].values()
        assert {folder} == {value.rpartition("/")[0] for value in files if "/" in value}
