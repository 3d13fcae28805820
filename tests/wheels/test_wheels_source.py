"""tools.wheels.source: which files a wheel is built from, and as which version."""

from dataclasses import replace
from pathlib import Path

import pytest
import tomlkit

from tests.services.project import Project
from tools.core.errors import PipelineError, UsageError
from tools.core.secrets import redact
from tools.wheels.archive import RecordedSource
from tools.wheels.source import Source, copy_tree, fetch, open_tree, parse_source, put_project

PROJECT = '[project]\nname = "MLC.llm"\nversion = "0.20.0.dev0"  # kept\n'


def repository(folder: Path, **files: str) -> Project:
    """A git repository with one commit of a project and some files."""
    folder.mkdir()
    for name, text in {"pyproject.toml": PROJECT, **files}.items():
        (folder / name).write_text(text)
    project = Project(folder)
    project.git("init", "--quiet", "--initial-branch=main")
    project.commit()
    return project


@pytest.fixture
def origin(tmp_path: Path) -> Project:
    """A repository whose package needs a submodule that is not at its branch's tip."""
    part, whole = repository(tmp_path / "part", part="pinned"), repository(tmp_path / "whole")
    trust = ("-c", "protocol.file.allow=always")
    whole.git(*trust, "submodule", "--quiet", "add", part.root.as_uri(), "3rdparty/part")
    whole.commit()
    whole.git("tag", "--annotate", "v9.9.9", "--message=x")
    (part.root / "part").write_text("newer")
    part.commit()
    return whole


def below(folder: Path) -> set[str]:
    """Relative names of all files below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("text", "location", "ref", "part"),
    [
        ("git+https://host/o/n@v1.2", "https://host/o/n", "v1.2", ""),
        ("git+https://host/o/n", "https://host/o/n", "", ""),
        ("git+https://host:8443/o/n.git@feature/x", "https://host:8443/o/n.git", "feature/x", ""),
        ("git+https://[::1]:1/o/n@main", "https://[::1]:1/o/n", "main", ""),
        ("git+ssh://git@host/o/n", "ssh://git@host/o/n", "", ""),
        ("git+file:///srv/n@main#subdirectory=a/b", "file:///srv/n", "main", "a/b"),
        ("git+file:///srv@x/n@main", "file:///srv@x/n", "main", ""),
    ],
)  # fmt: skip
def test_addresses(tmp_path: Path, text: str, location: str, ref: str, part: str) -> None:
    """The address's parts are told apart as pip does; no setting means the stand-in."""
    assert parse_source(text, tmp_path) == Source("git", location, ref, part)
    assert parse_source("", tmp_path) == Source("stand-in", str(tmp_path / "package"))


@pytest.mark.parametrize(
    "text",
    ["https://host/o/n", "git+ext::sh -c id", "git+http://host/o/n", "git+https://host",
     "git+https://host/o/n@--upload-pack=x", "git+https://host/o/n#egg=x", "no/such/folder",
     "~no-such-user-of-ours/x", "git+https://me:s3cr%24t@host/o/n", "git+https://s3cr%24t@host/o/n"],
)  # fmt: skip
def test_refused_sources(tmp_path: Path, text: str) -> None:
    """What is not a source, or would be an option of git, is refused before anything is done;
    so is a token in an address, which would reach argv and logs, and it is not repeated.
    """
    with pytest.raises(UsageError, match="MLC_LLM_SOURCE") as caught:
        parse_source(text, tmp_path)
    assert "s3cr" not in f"{caught.value} {redact(text)}"


def test_only_tracked_files_are_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forgotten files, ignored ones and build products do not enter a wheel. A relative folder
    means the same wherever nox is started.
    """
    origin = repository(tmp_path / "r", **{"a.py": "1", "gone.py": "", ".gitignore": "*.so\n"})
    for name in ("a.py", "stray.py", "old.so"):
        (origin.root / name).write_text("2")
    (origin.root / "gone.py").unlink()
    (origin.root / "link.py").symlink_to("a.py")
    origin.git("add", "link.py")
    tree = open_tree(parse_source("r", tmp_path), tmp_path / "cache")
    assert tree.recorded == RecordedSource("folder", origin.git("rev-parse", "HEAD"), True)
    warned = capsys.readouterr().err
    assert "1 files are left out" in warned and "not committed" in warned
    copy_tree(tree, tmp_path / "copy")
    assert below(tmp_path / "copy") == {"pyproject.toml", "a.py", ".gitignore", "link.py"}
    assert (tmp_path / "copy" / "a.py").read_text() == "2"
    assert (tmp_path / "copy" / "link.py").is_symlink()


def test_folder_without_git(tmp_path: Path) -> None:
    """An unpacked archive is built whole, but for old build products at its top."""
    for name in ("pyproject.toml", "build/x.o", "src/build/y.py", ".venv/z", "m.egg-info/q"):
        path = tmp_path / "s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PROJECT)
    tree = open_tree(Source("folder", str(tmp_path / "s")), tmp_path / "cache")
    assert tree.recorded == RecordedSource("folder", None, False)
    copy_tree(tree, tmp_path / "copy")
    assert below(tmp_path / "copy") == {"pyproject.toml", "src/build/y.py"}


def test_submodules(tmp_path: Path, origin: Project) -> None:
    """A tag, branch or commit comes with its submodules at their pinned commits. A folder
    whose submodules were not checked out is refused before it fails to compile.
    """
    commit = origin.git("rev-parse", "HEAD")
    for ref in ("@v9.9.9", "@main", "", f"@{commit}"):
        source = parse_source(f"git+{origin.root.as_uri()}{ref}", tmp_path)
        tree = open_tree(source, tmp_path / ref)
        assert tree.recorded == RecordedSource("git", commit, False)
        copy = tmp_path / f"copy{ref}"
        copy_tree(tree, copy)
        assert (copy / "3rdparty/part/part").read_text() == "pinned"
        assert not (copy / ".git").exists()
    origin.git("clone", "--quiet", ".", str(tmp_path / "bare"))
    with pytest.raises(PipelineError, match="3rdparty/part.*not checked out") as caught:
        open_tree(Source("folder", str(tmp_path / "bare")), tmp_path / "cache")
    assert "submodule update --init --recursive" in caught.value.remedy


def test_fetch_is_cached_and_recovers(tmp_path: Path, origin: Project) -> None:
    """The checkout follows its reference; what a killed git left costs a fetch from scratch;
    a remote that is away, or a wrong reference, costs nothing.
    """
    source, cache = Source("git", origin.root.as_uri(), "main"), tmp_path / "cache"
    folder = fetch(source, cache)
    (folder / "mark").touch()
    commit = origin.commit("three")
    for kept in (True, False):
        assert fetch(source, cache) == folder
        assert Project(folder).git("rev-parse", "HEAD") == commit
        assert (folder / "3rdparty/part/part").read_text() == "pinned"
        assert (folder / "mark").exists() is kept
        (folder / ".git" / "index.lock").touch()
        (folder / "pyproject.toml").unlink()
    assert fetch(source, cache) == folder and list(cache.iterdir()) == [folder]
    with pytest.raises(PipelineError, match="could not fetch nowhere of file:"):
        fetch(replace(source, ref="nowhere"), cache)
    origin.root.rename(tmp_path / "away")
    with pytest.raises(PipelineError, match="could not fetch main of file:"):
        fetch(source, cache)
    assert (folder / "pyproject.toml").exists()


def test_version(tmp_path: Path) -> None:
    """A static version goes into the file, the rest of which stays as it is; a dynamic one is
    given in setuptools-scm's way. A project's own build folder is kept, and its version if
    none is given.
    """
    path, given = tmp_path / "pyproject.toml", "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MLC_LLM"
    path.write_text(PROJECT + '[build-system]\nrequires = ["x>=1"]\n')
    expected = {"SKBUILD_BUILD_DIR": "build"}
    assert put_project(tmp_path, None) == (["x>=1"], expected)
    assert path.read_text().startswith(PROJECT)
    assert put_project(tmp_path, "1.2.3rc1") == (["x>=1"], expected)
    assert tomlkit.parse(path.read_text())["project"]["version"] == "1.2.3rc1"
    assert "# kept" in path.read_text()
    text = '[project]\nname = "MLC.llm"\ndynamic = ["version"]\n[tool.scikit-build]\nbuild-dir = "b"\n'
    path.write_text(text)
    assert put_project(tmp_path, "1.2.3") == (["setuptools"], {given: "1.2.3"})
    assert put_project(tmp_path, None) == (["setuptools"], {})
    assert path.read_text() == text


def test_name_and_dependencies(tmp_path: Path) -> None:
    """A flavour's name, and what upstream forgets to declare: what is declared already is not
    said again, but a version is beside a name without one. Comments stay.
    """
    path = tmp_path / "pyproject.toml"
    declared = 'dependencies = [\n  "Psutil",  # kept\n  "apache_tvm",\n  "torch; os_name == \'nt\'",\n]\n'
    path.write_text(f"{PROJECT}{declared}")
    put_project(tmp_path, "1.0", "mlc-llm-cu128", ["apache-tvm == 0.26.0", "psutil", "torch"])
    project = tomlkit.parse(path.read_text()).unwrap()["project"]
    assert project["name"] == "mlc-llm-cu128" and path.read_text().count("# kept") == 2
    own = ["Psutil", "apache_tvm", "torch; os_name == 'nt'"]
    assert project["dependencies"] == [*own, "apache-tvm==0.26.0", "torch"]
    again = path.read_text()
    put_project(tmp_path, "1.0", "mlc-llm-cu128", ["apache-tvm==0.26.0", "psutil", "torch"])
    assert path.read_text() == again
    path.write_text('[project]\nname = "x"\ndynamic = ["version"]\n')
    _, variables = put_project(tmp_path, "1.0", "mlc-llm-cu128", ["psutil"])
    assert "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MLC_LLM_CU128" in variables
    assert tomlkit.parse(path.read_text()).unwrap()["project"]["dependencies"] == ["psutil"]


def test_dynamic_dependencies(tmp_path: Path) -> None:
    """Nothing can be added to what the build alone knows; with nothing to add it is no fault."""
    text = '[project]\nname = "x"\ndynamic = ["version", "dependencies"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    put_project(tmp_path, "1.0")
    with pytest.raises(PipelineError, match="dynamic: apache-tvm, psutil cannot be") as caught:
        put_project(tmp_path, "1.0", requires=["apache-tvm", "psutil"])
    assert "Declare them" in caught.value.remedy


def test_unreadable_project(tmp_path: Path) -> None:
    """A pyproject.toml that is not there, or names no project, is one sentence."""
    wrong = PROJECT + 'dependencies = ["?"]\n'
    for text in ("[project", "[tool.x]\n", 'project = "x"\n', "[project]\n", wrong, ""):
        with pytest.raises(PipelineError, match="table .* cannot be read") as caught:
            put_project(tmp_path, "1.2.3", requires=["psutil"])
        assert "#subdirectory=FOLDER" in caught.value.remedy
        (tmp_path / "pyproject.toml").write_text(text)
