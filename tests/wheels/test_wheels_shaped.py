"""A project in the shape of MLC-LLM through all of ``nox -s wheels``: it is compiled, repaired
and held against a companion that fits and one that does not; and small variants of it, each
broken in one way, with the sentence that a maintainer needs.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.conftest import skip_except_in_ci
from tests.services.project import Project
from tests.wheels.test_wheels import checkout
from tools.core.settings import ROOT
from tools.wheels.archive import read_wheel

SHAPED, COMPANION = (ROOT / "tests" / "data" / name for name in ("shaped", "shaped-companion"))
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it is built on Linux"),
    pytest.mark.xdist_group("shaped"),  # one worker, as it is built once
]


@pytest.fixture(scope="module")
def companions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a wheel of the companion: as it should be, and without a symbol."""
    for program in ("c++", "cargo"):
        if not shutil.which(program):
            skip_except_in_ci(f"{program} is not installed")
    folders = {}
    for name, option in (("good", "OFF"), ("old", "ON")):
        folder = tmp_path_factory.mktemp(name)
        for source in (SHAPED, COMPANION):
            shutil.copytree(source, folder / "src" / source.name)
        command = [sys.executable, "-m", "build", "--wheel", "--installer=uv"]
        command += ["--outdir", str(folder), str(folder / "src" / COMPANION.name)]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "CMAKE_ARGS": f"-DTVM_OLD={option}", "PATH": path}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        folders[name] = folder
    return folders


@dataclass
class World:
    """A checkout whose flavour has the companion, and its builds."""

    project: Project
    companions: dict[str, Path]

    @property
    def dist(self) -> list[str]:
        """What is in dist/."""
        return sorted(path.name for path in (self.project.root / "dist").glob("*"))

    def build(
        self, *args: str, source: Path = SHAPED, companion: str = "good", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Build wheels from a source, with one of the companions to be found."""
        places = dict.fromkeys(
            ("UV_FIND_LINKS", "PIP_FIND_LINKS"), str(self.companions[companion])
        )
        places |= {"MLC_LLM_SOURCE": str(source), "WHEEL_CONTAINER": "never", "MANYLINUX": ""}
        return self.project.run("wheels", *args, env=places | env)


@pytest.fixture(scope="module")
def world(companions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    """The checkout, at a tag."""
    folder = tmp_path_factory.mktemp("shaped") / "c"
    return World(checkout(folder, companion="shaped-tvm==0.26.0"), companions)


@pytest.fixture(scope="module")
def built(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The wheel, what was printed as JSON, and what was shown."""
    home = tmp_path_factory.mktemp("home")
    real = Path.home()
    homes = {"CARGO_HOME": str(real / ".cargo"), "RUSTUP_HOME": str(real / ".rustup")}
    homes |= {"UV_CACHE_DIR": str(real / ".cache" / "uv")}
    done = world.build("--json", HOME=str(home), **homes)
    assert done.returncode == 0, done.stderr
    assert not (home / ".cache" / "mlc_llm").exists()  # where an import writes to
    [path] = (world.project.root / "dist").glob("*.whl")
    return path, done.stdout, done.stderr


def test_the_wheel(built: tuple[Path, str, str]) -> None:
    """It is tagged manylinux, has what its libraries need but for TVM's, declares what the
    source forgets, and holds no path or commit of where it was built.
    """
    wheel = read_wheel(built[0])
    assert wheel.version == "1.2.3" and wheel.tags[0].startswith("py3-none-manylinux_2_")
    with zipfile.ZipFile(wheel.path) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(archive.read("mlc_llm-1.2.3.dist-info/METADATA"))
        everything = b"".join(map(archive.read, names))
        library = archive.read("mlc_llm/libmlc_llm.so")
    assert any(name.startswith("mlc_llm.libs/libgomp-") for name in names)
    assert not any("tvm" in name for name in names if name.startswith("mlc_llm.libs/"))
    declared = metadata.get_all("Requires-Dist")
    assert set(declared or ()) == {
        "apache-tvm-ffi==0.1.13.post3",
        "psutil",
        "shaped-tvm==0.26.0",
    }
    assert b"./cpp/engine.cc Nov 14 2023 22:13:20 NOT-FOUND" in library
    assert b"./3rdparty/tokenizers/rust/../vendor/words/src/lib.rs" in library  # of a panic
    for trace in (wheel.path.parents[1], Path.home(), ROOT):
        assert os.fsencode(trace) + b"/" not in everything


def test_the_gate_passes(built: tuple[Path, str, str]) -> None:
    """The report says who has what. No command is a warning, and so is the other version in
    the source.
    """
    _, printed, shown = built
    assert "2 of libtvm_runtime.so (shaped-tvm 0.26.0)" in shown
    assert "1 of libtvm_ffi.so (apache-tvm-ffi 0.1.13.post3)" in shown
    [recorded] = json.loads(printed)["wheels"]
    assert recorded["companion"] == "shaped-tvm==0.26.0"
    assert recorded["abi"]["libtvm_runtime.so (shaped-tvm 0.26.0)"] == 2
    assert "mlc_llm.__version__ is 0.1.dev0, not 1.2.3" in shown
    assert "installs no command mlc_llm" in shown


def test_what_is_refused(world: World, built: tuple[Path, str, str]) -> None:
    """A companion without one symbol: the sentence names the libraries and the versions, the
    symbol stands as in C++. A wheel that could not be installed in the production image: both
    numbers. The second run goes on from the built wheel; dist/ stays as it was.
    """
    before = world.dist
    done = world.build(companion="old")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "error: libmlc_llm.so, libmlc_llm_module.so: 1 symbol not found in apache-tvm-ffi "
        "0.1.13.post3 and shaped-tvm 0.26.0." in done.stderr
    )
    assert "missing: tvm::runtime::Module::Step(long) const" in done.stderr
    done = world.build(PRODUCTION_GLIBC="2.28")
    assert done.returncode == 1 and "Building project with Ninja" not in done.stderr
    assert "needs glibc 2." in done.stderr and "the production image has 2.28" in done.stderr
    assert world.dist == before


def test_the_same_bytes(world: World, built: tuple[Path, str, str], tmp_path: Path) -> None:
    """Compiled twice in different folders, C++ and Rust: not one byte differs."""
    source = tmp_path / "elsewhere"
    shutil.copytree(SHAPED, source)
    (source / "cpp" / "engine.cc").touch()
    done = world.build("--twice", source=source)
    assert done.returncode == 0, done.stderr
    assert "byte-identical" in done.stderr


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of one place of one file."""

    def change(source: Path) -> None:
        text = (source / name).read_text()
        assert old in text
        (source / name).write_text(text.replace(old, new, 1))

    return change


def kill_the_compiler(source: Path) -> None:
    """A compiler that the system kills, as it does where memory runs out."""
    script = source / "killed"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    place = "set_property(SOURCE cpp/engine.cc PROPERTY COMPILE_OPTIONS -wrapper;${CMAKE_SOURCE_DIR}/killed)"
    edit("CMakeLists.txt", "include(GNUInstallDirs)", f"include(GNUInstallDirs)\n{place}")(
        source
    )


VARIANTS = {
    "no-cargo": (
        edit("3rdparty/tokenizers/CMakeLists.txt", "CARGO_EXECUTABLE cargo", "CARGO_EXECUTABLE nowhere"),
        "error: The wheel could not be built: cargo was not found",
    ),
    "cmake-of-the-future": (
        edit("3rdparty/tvm/CMakeLists.txt", "VERSION 3.26", "VERSION 99.1"),
        "error: The wheel could not be built: it requires CMake >=99.1; here is ",
    ),
    "crates-out-of-reach": (
        edit(
            "3rdparty/tokenizers/rust/.cargo/config.toml",
            'directory = "../vendor"',
            'registry = "http://127.0.0.1:9/"\n[net]\nretry = 0',
        ),
        "error: The wheel could not be built: cargo could not fetch a crate",
    ),
    "out-of-memory": (kill_the_compiler, "error: The wheel could not be built: a compiler ran out of memory"),
    "library-of-nobody": (
        edit(
            "CMakeLists.txt",
            "foreach(library mlc_llm mlc_llm_module)",
            "file(WRITE ${CMAKE_BINARY_DIR}/nobody.cc [[int nobody() { return 0; }]])\n"
            "add_library(nobody SHARED ${CMAKE_BINARY_DIR}/nobody.cc)\n"
            "link_libraries(-Wl,--no-as-needed nobody)\n"
            "foreach(library mlc_llm mlc_llm_module)",
        ),
        "error: auditwheel does not find libnobody.so",
    ),
    "one-more-duplicate": (
        edit(
            "CMakeLists.txt", "install(FILES README.md",
            'install(FILES README.md DESTINATION docs)\n  install(FILES README.md',
        ),
        "W002: Wheel contains duplicate files:\n  mlc_llm/README.md\n  mlc_llm/docs/README.md\n"
        "error: check-wheel-contents finds fault",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(world: World, name: str, tmp_path: Path) -> None:
    """One broken project a failure: the sentence names what is missing, without a traceback,
    and dist/ is as it was.
    """
    change, sentence = VARIANTS[name]
    source, before = tmp_path / name, world.dist
    shutil.copytree(SHAPED, source)
    change(source)
    done = world.build(source=source)
    assert done.returncode == 1 and sentence in done.stderr, done.stderr
    assert "Traceback" not in done.stderr[done.stderr.rindex("\nerror: ") :]
    assert world.dist == before
