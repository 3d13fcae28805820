"""The small parts of the cleanup: pace, pages, cache, progress."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import pytest
from githubkit_schemas.latest.models import PackageVersion
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services.packages import PackagesService
from tests.services.registry import Repository
from tools.cleanup.cache import Cache, load
from tools.cleanup.plan import PLAIN, Deletion, Facts, Plan, Version
from tools.cleanup.run import Carrier
from tools.core.errors import PipelineError
from tools.core.progress import human_time, progress, time_left
from tools.github.pacing import BUSY_SECONDS, POINTS, WINDOW, Pacer
from tools.github.packages import page_number, parse_version


class Time:
    """A clock that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now += seconds
        return event.is_set()

    def pacer(self, points: int = POINTS) -> Pacer:
        return Pacer(points, clock=lambda: self.now, wait=self.wait)


# --- pace ---


@given(st.lists(st.tuples(st.sampled_from([1, 5]), st.floats(0, 3)), max_size=400))
@settings(max_examples=60)
def test_no_minute_has_too_much(requests: list[tuple[int, float]]):
    """In any window of a minute: 900 points, and 90 seconds of answers, at most."""
    time, sent, busy = Time(), [], []
    pacer = time.pacer(100)
    for points, took in requests:
        with pacer.turn(points):
            sent.append((time.now, points))
            time.now += took
        busy.append((time.now, took))
    for start, _ in sent:
        assert sum(p for when, p in sent if start <= when < start + WINDOW) <= 100
    for end, _ in busy:
        within = [took for when, took in busy if end - WINDOW < when <= end]
        # One answer may end over the limit: its length is known only then.
        assert sum(within[:-1]) <= BUSY_SECONDS + 3


def test_as_fast_as_allowed():
    """180 deletions go at once; the 181st waits for the rest of the minute, no longer."""
    time = Time()
    pacer = time.pacer()
    for _ in range(180):
        with pacer.turn(5):
            pass
    assert time.now == 0.0
    with pacer.turn(5):
        assert 60.0 <= time.now < 60.1
    assert pacer.seconds_for(180, 5) == 0.0
    assert pacer.seconds_for(360, 5) == pytest.approx(60.0)


def test_a_server_without_limits():
    """GitHub Enterprise Server has none unless its owner sets some."""
    time = Time()
    pacer = time.pacer(0)
    for _ in range(5000):
        with pacer.turn(5):
            pass
    assert time.now == 0.0 and pacer.seconds_for(5000, 5) == 0.0


def test_nobody_gets_a_turn_after_the_end():
    """What waits for its turn when we are interrupted is not sent."""
    pacer = Pacer()
    pacer.stop.set()
    with pytest.raises(PipelineError), pacer.turn(1):
        raise AssertionError("it was sent")


# --- pages and versions ---


@pytest.mark.parametrize(
    ("link", "relation", "expected"),
    [
        ('<http://x/v?per_page=100&page=2>; rel="next", <http://x/v?page=7>; rel="last"', "last", 7),
        ("<http://x/v?page=3>; rel=next", "next", 3),
        ('<http://x/v?after=abc>; rel="last"', "last", 0),
        ("", "last", 0),
    ],
)  # fmt: skip
def test_page_numbers(link: str, relation: str, expected: int):
    """The number of pages is read from the header; without one they are followed."""
    assert page_number(link, relation) == expected


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
    model = PackageVersion.model_validate(described)
    assert model.metadata and model.metadata.container.tags == ["v1"]


# --- cache ---

digests = st.integers(0, 50).map(lambda number: f"sha256:{number:064x}")
facts = st.lists(digests, unique=True, max_size=5).flatmap(
    lambda children: st.builds(
        Facts,
        st.just(tuple(children)),
        st.just(tuple(children[::2])),
        st.just("") | digests,
    )
)


@given(st.dictionaries(digests, facts), st.sets(digests))
@settings(max_examples=100)
def test_the_cache_gives_back_what_it_got(tmp_path_factory, kept: dict, gone: set):
    """What is read from the file is what was written, without what is gone."""
    path = tmp_path_factory.mktemp("cache") / "a.json.gz"
    there = set(kept) - gone
    Cache(path, "p", dict(kept), dict.fromkeys(gone, (7, 5.0))).save(there, 10.0)
    found = load(path, "p")
    assert found.facts == {digest: kept[digest] for digest in there}
    assert set(found.deleted) == gone
    assert load(path, "other").facts == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", gzip.compress(b"{"), gzip.compress(b"[]"), gzip.compress(b'{"format":1}'),
     gzip.compress(b'{"format":1,"package":"p","deleted":{}}\n["d",[1]]\n'),
     gzip.compress(b'{"format":1,"package":"p","deleted":{}}\n["d",0]\n')[:-4]],
    # gzip has the time in it: as the tests' names these would differ between processes.
    ids=["empty", "nonsense", "half", "list", "no package", "wrong fact", "cut"],
)  # fmt: skip
def test_any_damage_empties_the_cache(tmp_path: Path, content: bytes):
    """A file that is not what was written is not used, and nobody sees a traceback."""
    path = tmp_path / "a.json.gz"
    path.write_bytes(content)
    assert load(path, "p").facts == {}


@given(st.data())
@settings(max_examples=150)
def test_a_flipped_byte_is_noticed(tmp_path_factory, data: st.DataObject):
    """Whatever is damaged: the cache gives what was written, or nothing."""
    path = tmp_path_factory.mktemp("cache") / "a.json.gz"
    kept = {f"sha256:{n:064x}": Facts((f"sha256:{n + 1:064x}",)) for n in range(30)}
    Cache(path, "p", dict(kept)).save(kept, 0.0)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert load(path, "p").facts in ({}, kept)


def test_a_cache_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A read-only folder costs the cache, not the run."""
    (tmp_path / "file").write_text("")
    Cache(tmp_path / "file" / "a.json.gz", "p", {"d": PLAIN}).save({"d"}, 0.0)
    assert "cannot be kept" in capsys.readouterr().err


def test_deletions_are_forgotten_after_thirty_days(tmp_path: Path):
    """GitHub can restore no longer than that."""
    cache = Cache(tmp_path / "a.json.gz", "p", {}, {"old": (1, 0.0), "new": (2, 90 * 86400.0)})
    cache.save(set(), 100 * 86400.0)
    assert set(load(tmp_path / "a.json.gz", "p").deleted) == {"new"}


# --- carrying out ---


def chain(*pairs: tuple[str, tuple[str, ...]]) -> Plan:
    deletions = tuple(Deletion(Version(n, d), "", after) for n, (d, after) in enumerate(pairs))
    return Plan(deletions, {}, {}, {})


def test_parents_first_however_many_workers():
    """A part is deleted only after all that list it, whatever the threads do."""
    order: list[str] = []
    plan = chain(("a", ()), ("b", ()), ("c", ("a", "b")), ("d", ("c",)))
    outcome = Carrier(
        plan, lambda v: order.append(v.digest), lambda: {"a", "b", "c", "d"}
    ).run()
    assert set(order[:2]) == {"a", "b"} and order[2:] == ["c", "d"]
    assert list(outcome.deleted) == order


def test_what_is_saved_saves_its_parts():
    """The second look spares a parent: its parts and their signatures stay too."""
    plan = chain(("a", ()), ("b", ()), ("c", ("b",)), ("d", ("c",)))
    gone: list[str] = []
    outcome = Carrier(plan, lambda v: gone.append(v.digest), lambda: {"a", "c", "d"}).run()
    assert gone == ["a"] and set(outcome.saved) == {"b", "c", "d"}


def test_a_failing_second_look_deletes_nothing():
    """If the package can't be looked at again, what was planned is not trusted."""
    gone: list[str] = []

    def look() -> set[str]:
        raise PipelineError("no answer")

    with pytest.raises(PipelineError):
        Carrier(chain(("a", ())), lambda v: gone.append(v.digest), look).run()
    assert gone == []


def test_looks_again_while_it_goes_on():
    """A run of hours looks again and again: what is needed meanwhile is saved."""
    time, looks = Time(), []

    def look() -> set[str]:
        looks.append(time.now)
        return {"a", "b", "c"} if len(looks) == 1 else {"c"}

    def delete(version: Version) -> None:
        time.now += 61

    plan = chain(("a", ()), ("b", ()), ("c", ()))
    outcome = Carrier(plan, delete, look, workers=1, clock=lambda: time.now).run()
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
    with progress("deleted", clock=lambda: time.now) as told:
        for number in range(1, 31):
            time.now += 1
            told(number, 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["deleted 10 of 60, about 50 s left", "deleted 20 of 60, about 40 s left", "deleted 30 of 60, about 30 s left"]  # fmt: skip
