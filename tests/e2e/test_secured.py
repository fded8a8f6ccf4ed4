"""Real processes that let nobody in, and the programs that are let in all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.dev_certs import DevCerts, make_dev_certs
from backend.program import Program
from tests.support.certificates import PAST, Authority
from tests.support.programs import ROOT, Programs, processes_with_home

LIST = "ktrdr.operations.v1.OperationsService/ListOperations"
PROCESSES = ("backend", "training_host", "ib_host")


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> DevCerts:
    return make_dev_certs(tmp_path_factory.mktemp("machine") / "certs")


@pytest.fixture(scope="module")
def address(certs: DevCerts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A backend that listens to every machine, and asks for certificates and tokens."""
    home = tmp_path_factory.mktemp("home")
    variables = {**certs.mutual_process, "KTRDR_BACKEND_ADDRESS": "0.0.0.0:0"}
    with Program("backend", home, home / "backend.log", variables) as backend:
        yield backend.address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # who is called
        log = (home / "backend.log").read_text()
        assert "KTRDR_INSECURE" not in log
        for scope in ("read", "write"):
            assert (certs.folder / f"{scope}.token").read_text().strip() not in log


def ktrdr(address: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*Programs.command("ktrdr"), *arguments, "--backend", address],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def grpcurl(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *Programs.command("grpcurl"),
            "-connect-timeout",
            "2",
            *arguments[:-1],
            address,
            arguments[-1],
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_is_let_in_with_certificate_and_token(address: str, certs: DevCerts) -> None:
    listed = ktrdr(address, "operations", "list", **certs.mutual_client)
    assert (0, "") == (listed.returncode, listed.stdout)
    assert 0 == ktrdr(address, "health", **certs.mutual_client).returncode


def test_without_a_certificate_it_says_one_sentence_and_gives_the_documented_code(
    address: str, certs: DevCerts
) -> None:
    for variables, words in ((certs.client, "If it asks for certificates"), ({}, "KTRDR_TLS_CA")):
        refused = ktrdr(address, "operations", "list", **variables)
        assert (4, "") == (refused.returncode, refused.stdout)
        assert refused.stderr.startswith(f"Error: no connection to {address}: ")
        assert words in refused.stderr
        assert 1 == refused.stderr.count("\n"), "gRPC's own account does not belong here"


def test_without_a_token_it_says_so_with_the_documented_code(address: str, certs: DevCerts) -> None:
    variables = {k: v for k, v in certs.mutual_client.items() if k != "KTRDR_TOKEN_FILE"}
    refused = ktrdr(address, "operations", "list", **variables)
    assert (2, "") == (refused.returncode, refused.stdout)
    assert "(TOKEN_MISSING)" in refused.stderr


def test_grpcurl_is_let_in_with_the_same(address: str, certs: DevCerts) -> None:
    folder = certs.folder
    token = (folder / "read.token").read_text().strip()
    tls = ("-cacert", str(folder / "ca.pem"))
    own = ("-cert", str(folder / "client.pem"), "-key", str(folder / "client.key"))
    header = ("-H", f"authorization: Bearer {token}")
    assert LIST.partition("/")[0] in grpcurl(address, *tls, *own, *header, "list").stdout
    assert 0 == grpcurl(address, *tls, *own, *header, LIST).returncode
    for left_out in ((*tls, *own), (*tls, *header), ("-plaintext", *header)):
        assert 0 != grpcurl(address, *left_out, LIST).returncode


# ---------------------------------------------------------------------- refused starts


def start(process: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a process that is expected not to."""
    return subprocess.run(
        [sys.executable, "-m", process],
        cwd=ROOT,
        env={**os.environ, "KTRDR_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_not_started(done: subprocess.CompletedProcess[str], home: Path, *words: str) -> None:
    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("Cannot start")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert [] == processes_with_home(home)


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_listens_to_other_machines_without_tls_and_tokens(
    process: str, tmp_path: Path
) -> None:
    variable = f"KTRDR_{process.upper()}_ADDRESS"
    done = start(process, tmp_path, **{variable: "0.0.0.0:0"})
    assert_not_started(done, tmp_path, f"{variable}: 0.0.0.0:0 can be reached", "KTRDR_INSECURE=1")


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_starts_with_a_certificate_that_has_expired(
    process: str, tmp_path: Path
) -> None:
    old = Authority(tmp_path).issue(file="old", validity=PAST)
    variables = {"KTRDR_TLS_CERT": str(old.cert), "KTRDR_TLS_KEY": str(old.key)}
    done = start(process, tmp_path / "home", **variables)
    words = f"KTRDR_TLS_CERT: the certificate in {old.cert} has expired"
    assert_not_started(done, tmp_path / "home", words, "renew it")


@pytest.mark.parametrize("process", PROCESSES)
def test_who_says_that_it_is_insecure_is_believed_and_warned(process: str, tmp_path: Path) -> None:
    variables = {f"KTRDR_{process.upper()}_ADDRESS": "0.0.0.0:0", "KTRDR_INSECURE": "1"}
    log = tmp_path / "log"
    with Program(process, tmp_path / "home", log, variables) as started:
        assert started.address.startswith("0.0.0.0:")
    assert "KTRDR_INSECURE: whoever reaches 0.0.0.0:0 is let in" in log.read_text()


# ---------------------------------------------------------------------------- the demo


DEMO = """
import sys, pathlib, backend.demo
sys.exit(backend.demo.main(pathlib.Path(sys.argv[1]), kind=backend.demo.HOSTS, tls=True))
"""


@pytest.mark.parametrize("target", ["demo", "demo-hosts", "demo-data"])
def test_make_runs_any_demo_over_tls_if_it_is_told_to(target: str) -> None:
    for given, expected in (("TLS=1", True), ("TLS=", False)):
        done = subprocess.run(
            ["make", "--dry-run", target, given],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        (command,) = [line for line in done.stdout.splitlines() if "backend.demo" in line]
        assert expected == command.endswith(" --tls")


@pytest.mark.slow
def test_the_demo_on_a_host_runs_over_tls_with_tokens(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEMO, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    log = (tmp_path / "backend.log").read_text()

    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"TLS is on; certificates and tokens are in {tmp_path / 'certs'}." in done.stdout
    assert "baseline" in done.stdout
    assert "Registered remote stub" in log
    assert "Registered local bridge" in (tmp_path / "training_host.log").read_text()
    for scope in ("read", "write"):
        token = (tmp_path / "certs" / f"{scope}.token").read_text().strip()
        assert token not in done.stdout + done.stderr + log
    assert [] == processes_with_home(tmp_path)
