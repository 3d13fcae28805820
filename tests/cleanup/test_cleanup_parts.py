"""The small parts of the cleanup: versions, memory, order, progress."""

import contextlib
import gzip
import os
import time
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

# --- versions ---


def test_versions_are_parsed(repository: Repository):
    """The fields that decide: digest, tags, and both times; of the simulator, whose JSON fits
    the model that is generated from GitHub's own description.
    """
    image = repository.build("v1")
    repository.manifest(repository.get("v1"), "v2")
    repository.set_all_ages(60.0)
    os.utime(repository.tag_link("v2"))
    listed = PackagesService(repository.registry).listed(repository)
    [data] = [one for one in listed if one["name"] == image.digest]
    assert Described.model_validate(data).name == image.digest
    found = parse_version(data)
    assert (found.digest, sorted(found.tags)) == (image.digest, ["v1", "v2"])
    assert found.id == data["id"] and 59 <= found.updated - found.created <= 65
    for missing in ("id", "name", "created_at", "metadata"):
        with pytest.raises(ValueError):
            parse_version({key: value for key, value in data.items() if key != missing})


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
    "text", ["", "{", "[]", '{"links":{}}', '{"image":"%s","links":{"d":[1]}}']
)
def test_any_damage_empties_it(tmp_path: Path, text: str, capsys: pytest.CaptureFixture):
    """A file that is not what was written is not used; it says so, in a sentence."""
    place = Settings(manifest_cache=str(tmp_path))
    content = gzip.compress(text.replace("%s", IMAGE).encode())
    for damaged in (content, content[:-4], text.encode()):
        memory.path_of(place).write_bytes(damaged)
        assert memory.load(place) == Memory(IMAGE)
        assert "is damaged" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A read-only folder costs the memory, not the run."""
    (tmp_path / "file").write_text("")
    memory.save(Settings(manifest_cache=str(tmp_path / "file")), Memory(IMAGE), ())
    assert "cannot be kept" in capsys.readouterr().err


# --- deleting ---


@pytest.mark.parametrize(
    ("after", "tagged", "gone", "saved"),
    [
        # A look keeps a parent: its parts and their signatures stay.
        ({"a": (), "b": (), "c": ("b",), "d": ("c",)}, (1, "b"), ["a"], ["b", "c", "d"]),
        # A run of hours looks again and again: what is needed meanwhile is saved.
        ({"a": (), "b": (), "c": ()}, (2, "b"), ["a", "c"], ["b"]),
        # What cannot be looked at again is not trusted.
        ({"a": ()}, (1, "fails"), [], []),
        ({"a": (), "b": ()}, (2, "fails"), ["a"], []),
    ],
)
def test_looks_again(monkeypatch: pytest.MonkeyPatch, after, tagged, gone, saved):
    """Deletions in the order of ``after`` (see CleanupPlan), one a minute; from the n-th look
    on a version is tagged, or looking fails.
    """
    clock, deleted, looks = SimpleNamespace(now=0.0), [], []
    versions = {one: PackageVersion(n, one) for n, one in enumerate(after, 1)}
    versions["root"] = PackageVersion(99, "root", ("v1",))

    def remove(version: PackageVersion) -> None:
        deleted.append(version.digest)
        clock.now += 61

    def read(_policy: Policy) -> Package:
        looks.append(clock.now)
        number, new = tagged
        there = dict(versions)
        if len(looks) >= number:
            if new == "fails":
                raise PipelineError("no answer")
            there[new] = replace(there[new], tags=("v2",))
        return Package(there, dict.fromkeys(there, NO_LINKS))

    monkeypatch.setattr("tools.cleanup.run.monotonic", lambda: clock.now)
    reader = SimpleNamespace(
        settings=Settings(github_points_per_minute=0), memory=Memory(IMAGE), read=read,
        remember=lambda: None, packages=SimpleNamespace(delete=remove),
    )  # fmt: skip
    plan = CleanupPlan(dict.fromkeys(after, "untagged"), after, {}, {}, {})
    result = CleanupResult(IMAGE, Package(versions, {}), plan, False)
    with contextlib.suppress(PipelineError):
        delete(reader, Policy(keep=0), result)
    assert list(result.deleted) == list(reader.memory.deleted) == deleted == gone
    assert list(result.saved) == saved
    assert looks == [61.0 * number for number in range(len(looks))]


# --- progress ---


def test_progress_is_told(capsys: pytest.CaptureFixture):
    """In a log: a line every ten seconds with the time left, in a person's unit."""
    texts = {0.2: "0 s", 45: "45 s", 89: "89 s", 125: "2 min", 3900: "1 h 05 min"}
    assert {seconds: human_time(seconds) for seconds in texts} == texts
    clock = SimpleNamespace(now=0.0)
    with progress("deleted", clock=lambda: clock.now) as report:
        for number in range(1, 21):
            clock.now += 1
            report(number, 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["deleted 10 of 60, about 50 s left", "deleted 20 of 60, about 40 s left"]
