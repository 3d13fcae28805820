"""tools.wheels.flavours: the table, the names of wheels, and what installers make of these."""

import functools
import http.server
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

import pytest
import yaml
from elftools.elf.elffile import ELFFile
from packaging.requirements import Requirement

from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT
from tools.repo.context import load_context
from tools.wheels import __main__ as wheels
from tools.wheels import check
from tools.wheels.flavours import (
    check_toolchain,
    choose,
    load_flavours,
    matrix,
    this_platform,
)
from tools.wheels.place import Place
from tools.wheels.source import open_tree

TABLE = load_flavours(ROOT)
SHAPED = ROOT / "tests" / "data" / "shaped"
# Notes its arguments, and compiles what it is handed as C++.
NVCC = """#!/bin/sh
echo "$@" >>"$NVCC_CALLS"
while [ "$1" != -c ]; do shift; done
exec c++ -fPIC -x c++ "$@"
"""
NAMES = ["cpu", "metal", "vulkan", "cu128", "cu130", "rocm61", "rocm62"]


def test_the_table() -> None:
    """Every flavour pins its companion, and names what building it takes."""
    assert list(TABLE) == NAMES
    for name, flavour in TABLE.items():
        assert re.fullmatch(r"==[\w.]+", str(Requirement(flavour.companion).specifier))
        assert flavour.default or flavour.toolchain, name
    assert TABLE["cu130"].cmake_args() == [
        "-DUSE_VULKAN=ON", "-DUSE_CUDA=ON", "-DCMAKE_CUDA_FLAGS=--expt-relaxed-constexpr",
        "-DCMAKE_CUDA_ARCHITECTURES=80;89;90a;110;120",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row, sentence",
    [
        ('companion = "tvm"\nspeed = 1', "flavours.odd]: speed is not a key of a flavour"),
        ('cmake = ["A=1"]', "flavours.odd]: .*missing required field `companion`"),
        ("companion = 3", "flavours.odd]: Expected `str`, got `int`"),
    ],
)
def test_wrong_entries(tmp_path: Path, row: str, sentence: str) -> None:
    """What is wrong in the table is said with the entry's name."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.mlc-pipeline.flavours.odd]\n{row}\n")
    with pytest.raises(UsageError, match=sentence):
        load_flavours(tmp_path)


def test_choosing() -> None:
    """Without a name the flavour that CI builds for the platform; each at most once."""
    assert [one.name for one in choose(TABLE, [], "linux-arm64")] == ["cpu"]
    assert [one.name for one in choose(TABLE, [], "macos-arm64")] == ["metal"]
    assert [one.name for one in choose(TABLE, [], "freebsd-riscv64")] == ["cpu"]
    named = choose(TABLE, ["cu128", "cpu", "cu128"], this_platform())
    assert [one.name for one in named] == ["cu128", "cpu"]
    with pytest.raises(UsageError, match="no flavour 'cuda'") as caught:
        choose(TABLE, ["cuda"], this_platform())
    assert "cu128" in caught.value.remedy
    assert choose({}, [], this_platform()) == ()


@pytest.mark.parametrize(
    "flavour, version, naming, expected",
    [
        ("cpu", "1.2.3", "name", ("mlc_llm", "1.2.3")),
        ("metal", "1.2.3", "local", ("mlc_llm", "1.2.3")),
        ("cu128", "1.2.3", "name", ("mlc-llm-cu128", "1.2.3")),
        ("cu128", "1.2.3", "local", ("mlc_llm", "1.2.3+cu128")),
        ("rocm62", "1.2.4.dev5+g1a2b", "local", ("mlc_llm", "1.2.4.dev5+g1a2b.rocm62")),
    ],
)
def test_identity(flavour: str, version: str, naming: str, expected: tuple[str, str]) -> None:
    """Names and versions, as docs/wheels.md has them."""
    assert TABLE[flavour].identity("mlc_llm", version, naming) == expected


def test_the_workflow_builds_the_table() -> None:
    """The matrix of build-wheels has the table's rows; a missing one is shown as written."""
    path = ROOT / ".github/workflows/ci-cd.yml"
    job = yaml.safe_load(path.read_text("utf-8"))["jobs"]["build-wheels"]
    assert job["strategy"]["matrix"]["include"] == matrix(TABLE)


def test_missing_toolchain() -> None:
    """It is said which program is missing, and which image has it, before anything is built."""
    with pytest.raises(PipelineError, match="cu128 needs nvcc and glslc, not found") as caught:
        check_toolchain(TABLE["cu128"], lambda name: None)
    assert "package-cu128" in caught.value.remedy
    with pytest.raises(PipelineError, match="metal needs xcrun, not found"):
        check_toolchain(TABLE["metal"], lambda name: None)
    check_toolchain(TABLE["cu128"], lambda name: f"/bin/{name}")


@pytest.mark.skipif(sys.platform != "linux", reason="the toolchain is a script")
@pytest.mark.xdist_group("compiled")
def test_a_gpu_flavour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's flavour, with a compiler of kernels that notes how it is called: options and
    architectures of the table reach it, the driver is not packed, the companion is declared.
    """
    programs = tmp_path / "cuda"
    programs.mkdir()
    for name, text in (("nvcc", NVCC), ("glslc", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "driver.c").write_text("int cuInit(unsigned int flags) { return 0; }")
    library = [
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        str(programs / "libcuda.so"),
    ]
    subprocess.run(["cc", *library, str(programs / "driver.c")], check=True)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NVCC_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("LIBRARY_PATH", str(programs))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(programs))
    settings = {"WHEEL_CONTAINER": "never", "MLC_LLM_SOURCE": str(SHAPED)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    plan = wheels.make_plan(load_context(), ["cu128"])
    [flavour] = plan.flavours
    tree = open_tree(plan.source, tmp_path)
    wheel = wheels.build_one(plan, flavour, tree, tmp_path / "work", Place())
    assert wheel.project == "mlc-llm-cu128"
    assert "manylinux_2_" in wheel.name
    codes = "".join(f"-gencode arch=compute_{one} " for one in ("80", "89", "90a", "120"))
    assert (tmp_path / "calls").read_text().startswith(f"{codes}--expt-relaxed-constexpr -c ")
    with zipfile.ZipFile(wheel.path) as archive:
        names = archive.namelist()
        [metadata] = (one for one in names if one.endswith("/METADATA"))
        requires = BytesParser().parsebytes(archive.read(metadata)).get_all("Requires-Dist")
        library = ELFFile(io.BytesIO(archive.read("mlc_llm/libmlc_llm.so")))
    assert "mlc-ai-cu128==0.20.0" in requires and "psutil" in requires
    needed = [
        tag.needed for tag in library.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")
    ]
    assert "libcuda.so.1" in needed
    assert not [name for name in names if "cuda" in Path(name).name]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Indexes with the CPU's and CUDA's wheels of a release: by name, and by local version."""
    top = tmp_path_factory.mktemp("index")
    for naming in ("name", "local"):
        for flavour in (TABLE["cpu"], TABLE["cu128"]):
            name, version = flavour.identity("mlc_llm", "1.2.3", naming)
            folder = top / naming / name.replace("_", "-")
            folder.mkdir(parents=True, exist_ok=True)
            make_wheel(folder, version, name=name.replace("-", "_"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(top))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def installers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """How each is called; an environment that uv has made has no pip."""
    venv = tmp_path_factory.mktemp("pip") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(check.program(venv, "python")), "-m", "pip"]
    return {"pip": [*pip, "install"], "uv": [sys.executable, "-m", "uv", "pip", "install"]}


@pytest.mark.xdist_group("installers")
@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize(
    "naming, required, chosen",
    [
        ("name", "mlc-llm", "mlc-llm 1.2.3"),
        ("name", "mlc-llm==1.2.3", "mlc-llm 1.2.3"),
        ("name", "mlc-llm-cu128", "mlc-llm-cu128 1.2.3"),
        # Why names are the default: a local version is newer than the plain one, and fits ==.
        ("local", "mlc-llm", "mlc-llm 1.2.3+cu128"),
        ("local", "mlc-llm==1.2.3", "mlc-llm 1.2.3+cu128"),
        ("local", "mlc-llm==1.2.3+cu128", "mlc-llm 1.2.3+cu128"),
    ],
)
def test_what_installers_choose(
    tmp_path: Path, index: str, installers: dict[str, list[str]], installer: str, naming: str,
    required: str, chosen: str,
) -> None:  # fmt: skip
    """Of an index with several flavours, pip and uv take the same wheel."""
    options = ["--dry-run", "--no-deps", "--target", str(tmp_path), "--index-url"]
    done = subprocess.run(
        [*installers[installer], *options, f"{index}/{naming}/", required],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = (done.stdout + done.stderr).replace("==", " ").replace("_", "-")
    said = re.sub(r"(mlc-llm(?:-cu128)?)-(\d)", r"\1 \2", said)
    assert re.search(rf"(Would install|\+) {re.escape(chosen)}$", said, re.MULTILINE), said
