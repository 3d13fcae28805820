"""tools.images.wheels: what is handed to the build of a production image."""

import os
from pathlib import Path

from tests.wheels.test_wheels_archive import README, make_wheel
from tools.images import wheels
from tools.wheels.archive import read_wheel
from tools.wheels.build import clean
from tools.wheels.requirements import pin

# Who requires whom: shared is required by a package that stays, too; the two of the ring
# require each other, and nobody else but heavy requires them.
GRAPH = {
    "heavy": ["deep", "shared", "ring_a"], "light": ["shared"], "shared": [], "deep": [],
    "ring_a": ["ring_b"], "ring_b": ["ring_a"],
}  # fmt: skip


def requires(*names: str) -> str:
    return "".join(f"Requires-Dist: {name}\n" for name in names) + README


def test_left_out(tmp_path: Path) -> None:
    """A package goes with what it alone requires; the rest is as it was pinned, hashes and all.
    Of a local place only what is pinned is handed in.
    """
    links = tmp_path / "links"
    links.mkdir()
    for name, others in GRAPH.items():
        make_wheel(links, name=name, contents={f"{name}.py": ""}, metadata=requires(*others))
    make_wheel(links, "9.9", name="unrelated")
    wheel = read_wheel(make_wheel(tmp_path, metadata=requires("heavy", "light")))
    env = clean(os.environ) | {"UV_FIND_LINKS": str(links), "UV_NO_INDEX": "1"}
    text = pin(wheel, tmp_path, env).read_text()
    assert text.count("--hash") == len(GRAPH) and wheels.leave_out(text, []) == text
    wheels.hand_in(tmp_path / "in", [str(wheel.path)], ["Heavy", "no-such"], str(links))
    kept = (tmp_path / "in/0/requirements.txt").read_text()
    names = [line.split("=")[0] for line in kept.splitlines() if not line.startswith(" ")]
    assert names == ["light", "shared"] and kept.count("--hash") == 2
    assert all(line in text for line in kept.splitlines())
    handed = {path.name.split("-")[0] for path in (tmp_path / "in").rglob("*.whl")}
    assert handed == {"light", "shared", "mlc_llm"}
    assert (tmp_path / "in/left-out.txt").read_text() == "heavy no-such"


def test_indexes() -> None:
    """uv's places and pip's reach the build as secrets; folders are not addresses."""
    assert wheels.indexes({"PIP_FIND_LINKS": "/a /b"}) == {}
    env = {
        "UV_INDEX": "mlc=https://a/simple https://b/simple", "PIP_INDEX_URL": "https://c",
        "UV_FIND_LINKS": "https://d/wheels,/local", "PIP_FIND_LINKS": "https://e",
    }  # fmt: skip
    assert wheels.indexes(env) == {
        "PIP_INDEX_URL": "https://c", "PIP_EXTRA_INDEX_URL": "https://a/simple https://b/simple",
        "PIP_FIND_LINKS": "https://d/wheels",
    }  # fmt: skip
