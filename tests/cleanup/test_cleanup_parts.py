"""The small parts of the cleanup: versions, memory, order, progress."""

import contextlib
import gzip
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from githubkit_schemas.latest.models import PackageVersion as Described
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services.packages import PackagesService
from tests.services.registry import Repository
from tools.cleanup import memory
from tools.cleanup.memory import Memory
from tools.cleanup.package import NO_LINKS, Links, Package
from tools.cleanup.plan import DAY, CleanupPlan, Policy
from tools.cleanup.report import CleanupResult
from tools.cleanup.run import delete
from tools.core.errors import PipelineError
from tools.core.progress import human_time, progress
from tools.core.settings import Settings
from tools.github.packages import PackageVersion, parse_version


class Time:
    """A clock that passes only when it is told."""

    now = 0.0


# --- versions ---


def test_versions_are_parsed():
    """The fields that decide: digest, tags, and both times."""
    data = {
        "id": 7, "name": "sha256:ab", "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:06+00:00", "metadata": {"container": {"tags": ["v1"]}},
    }  # fmt: skip
    found = parse_version(data)
    assert (found.id, found.digest, found.tags) == (7, "sha256:ab", ("v1",))
    assert found.updated - found.created == 1.0
    for missing in ("id", "name", "created_at", "metadata"):
        with pytest.raises(ValueError):
            parse_version({key: value for key, value in data.items() if key != missing})


def test_the_simulated_versions_are_githubs(repository: Repository):
    """The simulator's JSON fits the model that is generated from GitHub's own description."""
    image = repository.build("v1")
    described = PackagesService(repository.registry)._describe(repository, image.digest, ["v1"])
    model = Described.model_validate(described)
    assert model.metadata and model.metadata.container.tags == ["v1"]


# --- what is remembered ---

IMAGE = Settings().image
digests = st.integers(0, 50).map(lambda number: f"sha256:{number:064x}")
some = st.lists(digests, unique=True, max_size=5).map(tuple)
links = st.builds(Links, some, some, st.just("") | digests)


@given(st.dictionaries(digests, links), st.sets(digests), st.integers(0), st.integers(1, 255))
@settings(max_examples=100)
def test_what_was_written_is_read(tmp_path_factory, kept: dict, gone: set, at: int, flip: int):
    """What is read is what was written, without manifests that are gone and what GitHub does
    not restore any more; of a damaged file, or another image's, it is nothing.
    """
    place = Settings(manifest_cache=str(tmp_path_factory.mktemp("memory")))
    now = time.time()
    deleted = {"new": (2, now - 29 * DAY), "old": (1, now - 31 * DAY)}
    memory.save(place, Memory(IMAGE, dict(kept), deleted), set(kept) - gone)
    read = memory.load(place)
    assert read.links == {one: kept[one] for one in set(kept) - gone}
    assert set(read.deleted) == {"new"}
    path = memory.path_of(place)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= flip
    path.write_bytes(content)
    # A few bytes of a compressed file tell of its making alone.
    assert memory.load(place) in (Memory(IMAGE), read)
    memory.save(place, Memory("another", {"d": NO_LINKS}), {"d"})
    assert memory.load(place).links == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", gzip.compress(b"{"), gzip.compress(b"[]"), gzip.compress(b'{"links":{}}'),
     gzip.compress(b'{"image":"' + IMAGE.encode() + b'","links":{"d":[1]}}'),
     gzip.compress(b'{"image":"' + IMAGE.encode() + b'"}')[:-4]],
    # gzip has the time in it: as the tests' names these would differ between processes.
    ids=["empty", "nonsense", "half", "list", "no image", "wrong links", "cut"],
)  # fmt: skip
def test_any_damage_empties_it(tmp_path: Path, content: bytes, capsys):
    """A file that is not what was written is not used; it says so, in a sentence."""
    place = Settings(manifest_cache=str(tmp_path))
    memory.path_of(place).write_bytes(content)
    assert memory.load(place) == Memory(IMAGE)
    assert "is damaged" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A read-only folder costs the memory, not the run."""
    (tmp_path / "file").write_text("")
    memory.save(Settings(manifest_cache=str(tmp_path / "file")), Memory(IMAGE), ())
    assert "cannot be kept" in capsys.readouterr().err


# --- deleting ---


def run_delete(after: Mapping[str, tuple[str, ...]], tagged: Mapping[int, str]):
    """Delete in the order of ``after`` (see CleanupPlan), one a minute; from the n-th look on
    a version is tagged, or looking fails. The result, what went, and when it looked.
    """
    clock, gone, looks = Time(), [], []
    versions = {one: PackageVersion(n, one) for n, one in enumerate(after, 1)}
    versions["root"] = PackageVersion(99, "root", ("v1",))

    def remove(version: PackageVersion) -> None:
        gone.append(version.digest)
        clock.now += 61

    def read(_policy: Policy) -> Package:
        looks.append(clock.now)
        new = next((one for n, one in tagged.items() if n <= len(looks)), "")
        if new == "fails":
            raise PipelineError("no answer")
        there = {d: replace(v, tags=("v2",)) if d == new else v for d, v in versions.items()}
        return Package(there, dict.fromkeys(there, NO_LINKS))

    reader = SimpleNamespace(
        settings=Settings(github_points_per_minute=0), memory=Memory(IMAGE), read=read,
        remember=lambda: None, packages=SimpleNamespace(delete=remove),
    )  # fmt: skip
    plan = CleanupPlan(dict.fromkeys(after, "untagged"), after, {}, {}, {})
    result = CleanupResult(IMAGE, Package(versions, {}), plan, False)
    with contextlib.suppress(PipelineError):
        delete(reader, Policy(keep=0), result, lambda: clock.now)
    assert list(result.deleted) == gone == list(reader.memory.deleted)
    return result, gone, looks


def test_what_is_saved_saves_its_parts():
    """The look before the first deletion keeps a parent: its parts and their signatures stay."""
    result, gone, _ = run_delete({"a": (), "b": (), "c": ("b",), "d": ("c",)}, {1: "b"})
    assert gone == ["a"] and set(result.saved) == {"b", "c", "d"}


def test_looks_again_while_it_goes_on():
    """A run of hours looks again and again: what is needed meanwhile is saved."""
    result, gone, looks = run_delete({"a": (), "b": (), "c": ()}, {2: "b"})
    assert looks == [0.0, 61.0]
    assert gone == ["a", "c"] and set(result.saved) == {"b"}


def test_a_failing_look_deletes_nothing_more():
    """If the package can't be looked at again, what was planned is not trusted."""
    assert run_delete({"a": ()}, {1: "fails"})[1] == []
    assert run_delete({"a": (), "b": ()}, {2: "fails"})[1] == ["a"]


# --- progress ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (45, "45 s"), (89, "89 s"), (125, "2 min"), (3600, "1 h 00 min"), (3900, "1 h 05 min")],
)  # fmt: skip
def test_times_for_people(seconds: float, text: str):
    """Time left is told in the unit that a person would use."""
    assert human_time(seconds) == text


def test_plain_lines_now_and_then(capsys: pytest.CaptureFixture):
    """In a log: a line every ten seconds with the time left, not one a step."""
    clock = Time()
    with progress("deleted", clock=lambda: clock.now) as report:
        for number in range(1, 21):
            clock.now += 1
            report(number, 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["deleted 10 of 60, about 50 s left", "deleted 20 of 60, about 40 s left"]
