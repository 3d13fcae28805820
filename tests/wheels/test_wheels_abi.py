"""tools.wheels.abi: the gate, with small libraries that are compiled here."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import PipelineError
from tools.wheels.abi import check
from tools.wheels.archive import Wheel, read_wheel

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("g++") or os.environ.get("CI")),
    reason="ELF libraries are compiled with g++",
)

FFI = 'extern "C" int ffi_version() { return 1; } extern "C" int ffi_new() { return 1; }'
TVM = """
extern "C" int ffi_version();
namespace tvm { struct Module { long step(long); void load(); }; }
long tvm::Module::step(long value) { return value + ffi_version(); }
void tvm::Module::load() {}
extern "C" int tvm_call() { return 0; }
extern "C" int getppid() { return 1; }
"""
MLC = """
#include <string>
extern "C" int tvm_call();
extern "C" int getppid();
extern "C" int optional() __attribute__((weak));
__asm__(".globl never_called");
namespace tvm { struct Module { long step(long); void load(); }; }
thread_local int calls;  // by the loader's own __tls_get_addr
long mlc(const char* text) {
  tvm::Module module;
  ++calls;
  module.load();
  if (optional) optional();
  return module.step(std::string(text).size() + tvm_call() + getppid());
}
"""


def compiled(folder: Path, name: str, source: str, *linked: Path) -> Path:
    """A shared library of some C++, linked against others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.cc").write_text(source)
    command = ["g++", "-O1", "-fPIC", "-shared", f"-Wl,-soname,{name}", "-o", folder / name]
    subprocess.run([*command, folder / f"{name}.cc", *linked], check=True)
    return folder / name


def packed(folder: Path, libraries: Mapping[str, Path], tag: str = "") -> Wheel:
    """A wheel with libraries in it."""
    path = make_wheel(folder, tag=tag or "py3-none-manylinux_2_28_x86_64")
    with zipfile.ZipFile(path, "a") as archive:
        for member, library in libraries.items():
            archive.write(library, member)
    return read_wheel(path)


def install(site: Path, name: str, version: str, *libraries: Path) -> None:
    """Put libraries into an environment, as a distribution's."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (site / name).mkdir()
    for library in libraries:
        shutil.copy(library, site / name / library.name)
    lines = (f"{name}/{library.name},,\n" for library in libraries)
    (info / "RECORD").write_text("".join(lines))


class World:
    """A wheel's libraries, and its companions as they were when it was linked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, folder / "site-packages"
        self.ffi = compiled(folder / "good", "libtvm_ffi.so", FFI)
        self.tvm = compiled(folder / "good", "libtvm_runtime.so", TVM, self.ffi)
        self.mlc = compiled(folder / "good", "libmlc_llm.so", MLC, self.tvm)

    def wheel(self, **more: Path) -> Wheel:
        """The wheel, with a copy of the companion's library, as upstream packs one."""
        members = {"mlc_llm/libmlc_llm.so": self.mlc, "mlc_llm/lib/libtvm_runtime.so": self.tvm}
        return packed(self.folder, members | more)


EXCLUDED = ["libtvm*.so", "libcuda.so.*"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A wheel that fits its companions."""
    return World(tmp_path)


def test_who_has_what(world: World) -> None:
    """Each symbol of the wheel is counted once, by who has it; weak ones and those that
    nothing looks up are not, nor the companion's own. What has no version may be found in the system's libraries (here getppid, where
    the wheel was linked against a TVM that had one of its own).
    """
    install(world.site, "apache_tvm_ffi", "0.1", world.ffi)
    code = TVM.replace('extern "C" int getppid() { return 1; }', "")
    code += 'extern "C" int ffi_new(); int tvm_new() { return ffi_new(); }'
    new = compiled(world.folder / "new", "libtvm_runtime.so", code, world.ffi)
    install(world.site, "apache_tvm", "0.26.0", new)
    report = check(world.wheel(), world.site, EXCLUDED)
    mine = {name: count for name, count in report.providers.items() if name != "the system"}
    assert mine == {
        "libtvm_runtime.so (apache_tvm 0.26.0)": 3,
        "libtvm_ffi.so (apache_tvm_ffi 0.1)": 1,
    }
    assert report.symbols == sum(report.providers.values()) and not report.drivers
    names = subprocess.run(["nm", "-uD", world.mlc], capture_output=True, text=True, check=True)
    assert "never_called" in names.stdout and "w optional" in names.stdout
    assert "3 of libtvm_runtime.so (apache_tvm 0.26.0)" in str(report)


def test_a_companion_without_a_symbol(world: World) -> None:
    """The sentence names the library and the companions with their versions, the detail the
    symbol as one writes it. The copy in the wheel, which has it, does not count.
    """
    install(world.site, "apache_tvm_ffi", "0.1", world.ffi)
    old = TVM.replace("step(long)", "step(int)").replace("step(long value)", "step(int value)")
    library = compiled(world.folder / "old", "libtvm_runtime.so", old, world.ffi)
    install(world.site, "apache_tvm", "0.25.0", library)
    with pytest.raises(PipelineError) as caught:
        check(world.wheel(), world.site, EXCLUDED)
    assert caught.value.message == (
        "libmlc_llm.so: 1 symbol not found in apache_tvm 0.25.0 and apache_tvm_ffi 0.1."
    )
    assert caught.value.detail == "missing: tvm::Module::step(long)"
    assert "companion" in caught.value.remedy
    check(world.wheel(), world.site, ["libcuda.so.*"])  # the copy counts where it is loaded


def test_companions_out_of_step_with_each_other(world: World) -> None:
    """TVM lacks what its own library is linked against: the import would fail just as well."""
    other = compiled(
        world.folder / "old", "libtvm_ffi.so", 'extern "C" int ffi() { return 1; }'
    )
    install(world.site, "apache_tvm_ffi", "0.2", other)
    install(world.site, "apache_tvm", "0.25.0", world.tvm)
    # The copy in the wheel is not loaded, but it is looked at.
    with pytest.raises(PipelineError, match=r"libtvm_runtime.so \(apache_tvm 0.25.0\): 1 symbol") as caught:  # fmt: skip
        check(packed(world.folder, {"mlc_llm/libmlc_llm.so": world.mlc}), world.site, EXCLUDED)
    assert caught.value.detail == "missing: ffi_version"


def test_a_library_that_is_nowhere(world: World) -> None:
    """Not in the wheel, the system or a dependency: it is named, with what to do. That the
    wheel has a copy of a companion's library does not make up for the companion.
    """
    install(world.site, "mlc_llm", "1.2.3", world.mlc, world.tvm)  # it is installed, after all
    with pytest.raises(PipelineError) as caught:
        check(world.wheel(), world.site, EXCLUDED)
    assert caught.value.message == (
        "libmlc_llm.so needs libtvm_runtime.so, which is not in the wheel, the system or a "
        "dependency."
    )
    assert "WHEEL_EXCLUDE" in caught.value.remedy
    assert "libtvm_ffi.so" not in caught.value.message  # left out, and packed nowhere


@pytest.mark.parametrize("source", ['extern "C" int cuInit();', "int cuInit();"])
def test_a_driver(tmp_path: Path, source: str) -> None:
    """A driver that is left out and not installed is reported, and C symbols may be its; C++
    ones never are.
    """
    driver = compiled(tmp_path / "x", "libcuda.so.1", f"{source} int cuInit() {{ return 0; }}")
    code = f"{source} int mlc() {{ return cuInit(); }}"
    library = compiled(tmp_path / "x", "libmlc_llm.so", code, driver)
    wheel = packed(tmp_path, {"mlc_llm/libmlc_llm.so": library})
    with pytest.raises(PipelineError, match="libmlc_llm.so needs libcuda.so.1, which"):
        check(wheel, tmp_path, [])
    if source.startswith("extern"):
        report = check(wheel, tmp_path, EXCLUDED)
        assert report.drivers == ("libcuda.so.1",)
        assert report.providers["drivers (not checked)"] == 1
    else:
        with pytest.raises(PipelineError, match="in anything it is linked against") as caught:
            check(wheel, tmp_path, EXCLUDED)
        assert caught.value.detail == "missing: cuInit()"


def test_the_interpreter_and_grafted_libraries(tmp_path: Path) -> None:
    """Python's own symbols and those of a library that was put into the wheel are there."""
    gomp = compiled(tmp_path / "x", "libgomp-1.so.1", 'extern "C" int omp_get() { return 1; }')
    code = 'extern "C" int omp_get(), Py_IsInitialized(); int mlc() { return omp_get() + Py_IsInitialized(); }'
    library = compiled(tmp_path / "x", "_mlc.so", code, gomp)
    members = {"mlc_llm/_mlc.so": library, "mlc_llm.libs/libgomp-1.so.1": gomp}
    report = check(packed(tmp_path, members, "cp311-cp311-linux_x86_64"), tmp_path, [])
    assert dict(report.providers) == {"libgomp-1.so.1": 1, "Python": 1}


def test_other_wheels(tmp_path: Path) -> None:
    """Wheels that are not Linux's are not checked, and the report says so."""
    for tag in ("py3-none-any", "py3-none-win_amd64", "py3-none-macosx_13_0_arm64"):
        report = check(read_wheel(make_wheel(tmp_path, tag=tag)), tmp_path, [])
        assert report.symbols == 0 and "is not a compiled Linux wheel" in str(report)
