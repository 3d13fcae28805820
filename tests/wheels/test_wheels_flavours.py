"""tools.wheels.flavours: the table, the names of wheels, and what installers make of these."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import UsageError
from tools.core.settings import ROOT
from tools.wheels.flavours import choose, load_flavours, matrix, this_platform

TABLE = load_flavours(ROOT)
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
    tmp_path: Path, index: str, installer: str, naming: str, required: str, chosen: str
) -> None:
    """Of an index with several flavours, pip and uv take the same wheel."""
    options = ["--dry-run", "--no-deps", "--target", str(tmp_path), "--index-url"]
    command = ["pip", "install"] if installer == "pip" else ["uv", "pip", "install"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *options, f"{index}/{naming}/", required],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = (done.stdout + done.stderr).replace("==", " ").replace("_", "-")
    said = re.sub(r"(mlc-llm(?:-cu128)?)-(\d)", r"\1 \2", said)
    assert re.search(rf"(Would install|\+) {re.escape(chosen)}$", said, re.MULTILINE), said
