"""The small parts of the cleanup: versions, memory, order, progress."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from githubkit_schemas.latest.models import PackageVersion as Described
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services.packages import PackagesService
from tests.services.registry import Repository
from tools.cleanup.memory import Memory, load, save
from tools.cleanup.package import NO_LINKS, Links
from tools.cleanup.plan import CleanupPlan, Deletion
from tools.cleanup.run import Outcome, carry_out
from tools.core.errors import PipelineError
from tools.core.progress import human_time, progress, time_left
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
    service = PackagesService(repository.registry)
    described = service._describe(repository, image.digest, ["v1"])
    model = Described.model_validate(described)
    assert model.metadata and model.metadata.container.tags == ["v1"]


# --- what is remembered ---

digests = st.integers(0, 50).map(lambda number: f"sha256:{number:064x}")
links = st.lists(digests, unique=True, max_size=5).flatmap(
    lambda children: st.builds(
        Links, st.just(tuple(children)), st.just(tuple(children[::2])), st.just("") | digests
    )
)


@given(st.dictionaries(digests, links), st.sets(digests))
@settings(max_examples=100)
def test_what_was_written_is_read(tmp_path_factory, kept: dict, gone: set):
    """What is read from the file is what was written, without what is gone."""
    path = tmp_path_factory.mktemp("memory") / "a.json.gz"
    there = set(kept) - gone
    save(path, Memory("p", dict(kept), dict.fromkeys(gone, (7, 5.0))), there, 10.0)
    read = load(path, "p")
    assert read.links == {digest: kept[digest] for digest in there}
    assert set(read.deleted) == gone
    assert load(path, "other").links == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", gzip.compress(b"{"), gzip.compress(b"[]"), gzip.compress(b'{"package":"p"}'),
     gzip.compress(b'{"package":"p","deleted":{},"plain":[],"links":{"d":[1]}}'),
     gzip.compress(b'{"package":"p","deleted":{},"plain":["d"],"links":{}}')[:-4]],
    # gzip has the time in it: as the tests' names these would differ between processes.
    ids=["empty", "nonsense", "half", "list", "no links", "wrong links", "cut"],
)  # fmt: skip
def test_any_damage_empties_it(tmp_path: Path, content: bytes):
    """A file that is not what was written is not used, and nobody sees a traceback."""
    path = tmp_path / "a.json.gz"
    path.write_bytes(content)
    assert load(path, "p").links == {}


@given(st.data())
@settings(max_examples=150)
def test_a_flipped_byte_is_noticed(tmp_path_factory, data: st.DataObject):
    """Whatever is damaged: what is read is what was written, or nothing."""
    path = tmp_path_factory.mktemp("memory") / "a.json.gz"
    kept = {f"sha256:{n:064x}": Links((f"sha256:{n + 1:064x}",)) for n in range(30)}
    save(path, Memory("p", dict(kept)), kept, 0.0)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert load(path, "p").links in ({}, kept)


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A read-only folder costs the memory, not the run."""
    (tmp_path / "file").write_text("")
    save(tmp_path / "file" / "a.json.gz", Memory("p", {"d": NO_LINKS}), {"d"}, 0.0)
    assert "cannot be kept" in capsys.readouterr().err


def test_deletions_are_forgotten_after_thirty_days(tmp_path: Path):
    """GitHub can restore no longer than that."""
    memory = Memory("p", {}, {"old": (1, 0.0), "new": (2, 90 * 86400.0)})
    save(tmp_path / "a.json.gz", memory, set(), 100 * 86400.0)
    assert set(load(tmp_path / "a.json.gz", "p").deleted) == {"new"}


# --- carrying out ---


def chain(*pairs: tuple[str, tuple[str, ...]]) -> CleanupPlan:
    rows = (Deletion(n, d, (), "", "", after) for n, (d, after) in enumerate(pairs))
    return CleanupPlan(tuple(rows), {}, {}, {})


def test_what_is_saved_saves_its_parts():
    """The second look keeps a parent: its parts and their signatures stay too."""
    plan, outcome = chain(("a", ()), ("b", ()), ("c", ("b",)), ("d", ("c",))), Outcome()
    gone: list[str] = []
    carry_out(plan, outcome, lambda v: gone.append(v.digest), lambda: {"a", "c", "d"})
    assert gone == list(outcome.deleted) == ["a"]
    assert set(outcome.saved) == {"b", "c", "d"}


def test_a_failing_second_look_deletes_nothing():
    """If the package can't be looked at again, what was planned is not trusted."""
    gone: list[str] = []

    def look() -> set[str]:
        raise PipelineError("no answer")

    with pytest.raises(PipelineError):
        carry_out(chain(("a", ())), Outcome(), lambda v: gone.append(v.digest), look)
    assert gone == []


def test_looks_again_while_it_goes_on():
    """A run of hours looks again and again: what is needed meanwhile is saved."""
    time, looks, outcome = Time(), [], Outcome()

    def look() -> set[str]:
        looks.append(time.now)
        return {"a", "b", "c"} if len(looks) == 1 else {"c"}

    def delete(version: PackageVersion) -> None:
        time.now += 61

    plan = chain(("a", ()), ("b", ()), ("c", ()))
    carry_out(plan, outcome, delete, look, clock=lambda: time.now)
    assert looks == [0.0, 61.0]
    assert set(outcome.deleted) == {"a", "c"} and set(outcome.saved) == {"b"}


# --- progress ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (45, "45 s"), (89, "89 s"), (125, "2 min"), (3600, "1 h 00 min"), (3900, "1 h 05 min")],
)  # fmt: skip
def test_times_for_people(seconds: float, text: str):
    """Time left is told in the unit that a person would use."""
    assert human_time(seconds) == text


def test_time_left_knows_the_limits():
    """A fast start doesn't promise what GitHub's limits won't allow."""
    assert time_left(50, 100, 10.0) == 10.0
    assert time_left(50, 100, 10.0, least=300.0) == 300.0
    assert time_left(0, 100, 0.0, least=5.0) == 5.0


def test_plain_lines_now_and_then(capsys: pytest.CaptureFixture):
    """In a log: a line every ten seconds with the time left, not one a step."""
    time = Time()
    with progress("deleted", clock=lambda: time.now) as report:
        for number in range(1, 31):
            time.now += 1
            report(number, 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["deleted 10 of 60, about 50 s left", "deleted 20 of 60, about 40 s left", "deleted 30 of 60, about 30 s left"]  # fmt: skip
