"""The scripts that set a bare machine up."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import skip_except_in_ci
from tools.core.settings import ROOT


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """``.ci/services.py`` with a state folder of its own, whose path is short: an engine has
    sockets in there.
    """
    folder = tempfile.mkdtemp()
    monkeypatch.setenv("MLC_SERVICES_DIR", folder)
    monkeypatch.syspath_prepend(ROOT / ".ci")
    spec = importlib.util.spec_from_file_location("ci_services", ROOT / ".ci" / "services.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    subprocess.run([*(module.machine.as_root() or []), "rm", "-r", folder], check=True)


DEB822 = """Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/k.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
"""
SIGNED = "# deb http://no bookworm main\ndeb [arch=amd64 signed-by=/k.asc] http://m/d bookworm main\n"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("b.sources", DEB822, ("http://mirror.example/debian", "/usr/share/keyrings/k.gpg")),
        ("a.list", "deb http://one.example/d bookworm main\n", ("http://one.example/d", None)),
        ("a.list", SIGNED, ("http://m/d", "/k.asc")),
    ],
)
def test_mirror_is_the_machine_s_own(
    services: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, text: str, found: tuple[str, str | None],
) -> None:  # fmt: skip
    """The suite of the engine comes from the mirror that the machine uses already."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / name).write_text(text)
    moved = lambda path: Path(path.replace("/etc/apt", str(tmp_path)))  # noqa: E731
    monkeypatch.setattr(services.machine, "Path", moved)
    assert services.machine.debian_mirror("bookworm") == found


@pytest.mark.engine
def test_what_was_started_ends_with_its_last_user(services: ModuleType) -> None:
    """Users share what was started; it ends with the last one that is alive, and an engine
    that was there before stays.
    """
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    address = services.start(str(killed.pid), install=False)["REGISTRY"]
    for user in ("one", "two"):
        assert services.start(user, install=False)["REGISTRY"] == address
    services.stop("one")
    assert services.registry_answers(address)
    services.stop("two")
    assert not services.registry_answers(address)
    assert services.engines.image_store(None)


@pytest.mark.engine
@pytest.mark.xdist_group("second engine")
def test_a_second_engine_leaves_the_first_alone(
    services: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is an engine with each image store, and containers of the base image run in both,
    with a network; of the second nothing is left after its last user.
    """
    if services.machine.as_root() is None or shutil.which("dockerd") is None:
        skip_except_in_ci("no second engine can be started here")
    stores = {"CLASSIC_DOCKER_HOST": "classic", "CONTAINERD_DOCKER_HOST": "containerd"}
    for name in stores:
        monkeypatch.delenv(name, raising=False)
    try:
        found = services.start("one", install=False, both=True)
        for name, store in stores.items():
            assert services.engines.image_store(found[name]) == store
            command = ["docker", f"--host={found[name]}", "run", "--rm"]
            subprocess.run([*command, services.engines.BASE_IMAGE, "true"], check=True)
    finally:
        services.stop("one")
    assert [bool(services.engines.image_store(found[name])) for name in stores].count(True) == 1
    bridges = {
        services.engines.bridge_of(services.state_dir() / store) for store in stores.values()
    }
    assert bridges.isdisjoint(os.listdir("/sys/class/net"))


@pytest.mark.skipif(sys.platform != "linux", reason="services are started on Linux alone")
def test_a_stale_process_file_ends_nobody(services: ModuleType, tmp_path: Path) -> None:
    """After a restart of the machine the number in the file may be another program's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        kept = tmp_path / "dockerd.pid"
        kept.write_text(str(other.pid))
        services.daemons.end(kept)
        assert other.poll() is None
    assert not kept.exists()


@pytest.mark.engine
def test_run_hands_on_variables_and_exit_code(services: ModuleType) -> None:
    """A command run with the services sees the registry, and its exit code is ours."""
    code = "import os, urllib.request as u; u.urlopen('http://' + os.environ['REGISTRY'] + '/v2/'); raise SystemExit(7)"
    env = {k: v for k, v in os.environ.items() if k != "REGISTRY"}
    command = [sys.executable, str(ROOT / ".ci/services.py"), "run", "--no-install", "--"]
    done = subprocess.run([*command, sys.executable, "-c", code], env=env, timeout=120)
    assert done.returncode == 7
    assert not (services.state_dir() / "registry.pid").exists()
