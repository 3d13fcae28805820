"""Settings: where each comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core import settings
from tools.core.errors import UsageError
from tools.core.secrets import redact
from tools.core.settings import ROOT, load, parse_duration, parse_size


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that sets a registry of its own."""
    text = '[tool.mlc-pipeline]\nregistry = "table.io"\nplatforms = ["linux/amd64"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    return tmp_path


def test_environment_before_table_before_default(project: Path) -> None:
    """Each setting is taken from the first that has it, and says which that was."""
    found = load({"CMAKE_VERSION": "3.30"}, project)
    assert (found.cmake_version, found.registry, found.python_version) == (
        "3.30",
        "table.io",
        "3.11",
    )
    assert found.origins["cmake_version"] == "environment CMAKE_VERSION"
    assert found.origins["registry"] == "pyproject.toml registry"
    assert found.origins["python_version"] == "default"
    assert load({"REGISTRY": "env.io"}, project).registry == "env.io"


def test_a_prefixed_variable_wins(project: Path) -> None:
    """Base images export PYTHON_VERSION=3.11.7 for themselves: it is read, or overruled."""
    theirs = {"PYTHON_VERSION": "3.11.7"}
    assert load(theirs, project).python_version == "3.11"
    found = load({**theirs, "MLC_PYTHON_VERSION": "3.12"}, project)
    assert found.python_version == "3.12"
    assert found.origins["python_version"] == "environment MLC_PYTHON_VERSION"


def test_an_empty_variable_is_not_set(project: Path) -> None:
    """Actions passes unset secrets and variables on as empty text."""
    assert load({"REGISTRY": " ", "GH_TOKEN": ""}, project).registry == "table.io"


def test_image_name_is_lower_cased(project: Path) -> None:
    """GitHub names may have capitals, OCI names may not."""
    found = load({"GITHUB_REPOSITORY": "Owner/My_Repo"}, project)
    assert found.image == "table.io/owner/my_repo"
    assert load({"IMAGE_NAME": "A/B", "GITHUB_REPOSITORY": "C/D"}, project).image_name == "a/b"


def test_gh_token_before_github_token(project: Path) -> None:
    """The personal token wins over the run's own; blanks around it are dropped."""
    both = {"GH_TOKEN": " personal-token\n", "GITHUB_TOKEN": "run-token"}
    assert load(both, project).gh_token.reveal() == "personal-token"
    assert load({"GITHUB_TOKEN": "run-token"}, project).gh_token.reveal() == "run-token"


def test_a_public_account_name_is_not_masked(project: Path) -> None:
    """Or all image names would be, in JSON that others read."""
    load({"DOCKER_HUB_USERNAME": "someowner", "IMAGE_NAME": "someowner/name"}, project)
    assert redact("someowner/name") == "someowner/name"
    load({"DOCKER_HUB_USERNAME": "hiddenaccount", "IMAGE_NAME": "o/name"}, project)
    assert "hiddenaccount" not in redact("hiddenaccount")


BAD = [
    ("REGISTRY", "https://ghcr.io"), ("REGISTRY", "a b"), ("IMAGE_NAME", "a//b"),
    ("IMAGE_NAME", "-a"), ("PYTHON_VERSION", "2.7"), ("PYTHON_VERSION", "3.11.x"),
    ("CMAKE_VERSION", "three"), ("PLATFORMS", "amd64"), ("PLATFORMS", ","),
    ("CONTEXT_LIMIT", "many"), ("CONTEXT_LIMIT", "9" * 400), ("TEST_TIMEOUT", "120"),
    ("TEST_TIMEOUT", "9" * 400 + "d"), ("GITHUB_API_URL", "api.github.com"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_values_name_their_source(project: Path, name: str, value: str) -> None:
    """The sentence says which variable, what it holds, and what it should."""
    with pytest.raises(UsageError, match=f"environment {name}") as caught:
        load({name: value}, project)
    assert caught.value.remedy.startswith("Give ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('regstry = "x"', "regstry, which is not a setting"),
        ('gh-token = "x"', "secrets come from the environment alone"),
        ("registry = ", "not valid TOML"),
        ('registry = "https://x"', "pyproject.toml registry"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, said: str) -> None:
    """A misspelt key is no silent default, and a token in a file is refused."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.mlc-pipeline]\n{text}\n")
    with pytest.raises(UsageError, match=said):
        load({}, tmp_path)


@given(st.sampled_from(settings.names()), st.text(max_size=60))
def test_any_value_is_read_or_refused(name: str, value: str) -> None:
    """No environment ends in a traceback."""
    try:
        load({settings.variable(name): value}, Path("/no/such/folder"))
    except UsageError as error:
        assert not settings.is_secret(name)
        assert settings.variable(name) in error.message


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2000", 2000),
        ("50 MB", 50_000_000),
        ("1.5GiB", 1_610_612_736),
        (" 3 kb ", 3000),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Decimal and binary units, in any capitals."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("45s", 45),
        ("90m", 5400),
        ("36h", 129_600),
        ("30d", 2_592_000),
        ("1.5h", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """The documented forms."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-1d", "1w", "d", "1 d", "1e3s"])
def test_bad_durations(text: str) -> None:
    """A number without a unit is not guessed at."""
    with pytest.raises(ValueError, match="a duration such as"):
        parse_duration(text)


def test_the_projects_own_table_is_valid() -> None:
    """What pyproject.toml says can be read, and agrees with the documented defaults."""
    found = load({}, ROOT)
    assert (found.registry, found.python_version, found.cmake_version) == (
        "ghcr.io",
        "3.11",
        "3.24",
    )
    assert found.platforms == ("linux/amd64",)


def test_docs_are_current() -> None:
    """docs/settings.md is what `python -m tools.core.settings` prints."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert text == settings.documentation()
