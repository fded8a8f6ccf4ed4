from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.dev_certs import DevCerts, make_dev_certs, run
from shared.rpc.certificates import CA, read_authorities, read_key_pair
from shared.rpc.tokens import Scope, read_token, read_tokens
from shared.security import client_security, server_security
from shared.settings import ProcessSettings, load_settings
from tests.support.programs import ROOT


@pytest.fixture
def made(tmp_path: Path) -> DevCerts:
    return make_dev_certs(tmp_path / "certs")


def test_every_file_is_one_that_a_process_can_use(made: DevCerts) -> None:
    read_authorities(made.folder / "ca.pem", CA)
    for name in ("server", "client"):
        read_key_pair(made.folder / f"{name}.pem", made.folder / f"{name}.key")


@pytest.mark.parametrize("scope", Scope)
def test_there_is_a_token_of_each_scope_that_servers_take(made: DevCerts, scope: Scope) -> None:
    token = read_token(made.folder / f"{scope.name.lower()}.token")
    entry = read_tokens(made.folder / "tokens").entry_of(token)
    assert entry is not None
    assert (f"dev-{scope.name.lower()}", scope) == (entry.name, entry.scope)


def test_only_the_owner_may_read_any_of_it(made: DevCerts) -> None:
    assert 0o700 == made.folder.stat().st_mode & 0o777
    assert {0o600} == {path.stat().st_mode & 0o777 for path in made.folder.iterdir()}


def test_made_again_everything_is_new_and_nothing_is_left_over(made: DevCerts) -> None:
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    make_dev_certs(made.folder)
    after = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    assert before.keys() == after.keys()
    assert not any(before[name] == after[name] for name in before)


def test_a_process_with_its_variables_may_listen_to_everybody(
    made: DevCerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in made.mutual_process.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(ProcessSettings)
    security = server_security(settings, "KTRDR_BACKEND_ADDRESS", "0.0.0.0:0")
    assert security.credentials is not None
    assert security.tokens is not None
    assert client_security(settings, ["trainer:1"]).encrypted


def test_the_authoritys_key_is_not_kept(made: DevCerts) -> None:
    keys = [path.name for path in made.folder.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert ["client.key", "server.key"] == sorted(keys)


def test_run_as_a_program_it_says_what_it_made_and_no_token(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "where"
    done = subprocess.run(
        [sys.executable, "-m", "backend.dev_certs", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"Made in {folder}")
    told = {name.strip(",") for line in done.stdout.splitlines()[1:] for name in line.split()[:2]}
    assert {path.name for path in folder.iterdir()} <= told
    assert read_token(folder / "write.token") not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code"), [(["--help"], 0), (["--folder", "x"], 2), (["x", "y"], 2)]
)
def test_a_mistaken_call_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        run(arguments)
    assert exit_code == left.value.code
    assert [] == list(tmp_path.iterdir())


def test_what_is_made_is_not_put_under_version_control() -> None:
    assert ".ktrdr-certs/" in (ROOT / ".gitignore").read_text().splitlines()
