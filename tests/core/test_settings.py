"""Settings: where each comes from, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core import secrets
from tools.core.errors import UsageError
from tools.core.secrets import redact
from tools.core.settings import FIELDS, ROOT, SECRETS, load, parse_duration, parse_size, shown


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was a secret's value here, any word at all, is masked in no other test."""
    monkeypatch.setattr(secrets, "_known", set())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that sets a registry of its own."""
    text = '[tool.mlc-pipeline]\nregistry = "table.io"\nplatforms = ["linux/amd64"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    return tmp_path


def test_environment_before_table_before_default(project: Path) -> None:
    """Each setting is taken from the first that has it; what is empty is not set, as Actions
    passes that on.
    """
    found = load({"CMAKE_VERSION": "3.30", "REGISTRY": " ", "GH_TOKEN": ""}, project)
    values = (found.cmake_version, found.registry, found.python_version)
    assert values == ("3.30", "table.io", "3.11")
    assert load({"REGISTRY": "env.io"}, project).registry == "env.io"


def test_variables_of_the_repository(project: Path) -> None:
    """They come after the environment and before the table, and set no secret."""
    variables = (
        '{"REGISTRY": "vars.io", "WHEEL_EXCLUDE": "a.so b.so", "GH_TOKEN": "x", "OTHER": 1}'
    )
    found = load({"MLC_VARIABLES": variables}, project)
    assert (found.registry, found.wheel_exclude) == ("vars.io", ("a.so", "b.so"))
    assert not found.gh_token
    assert (
        load({"MLC_VARIABLES": variables, "REGISTRY": "env.io"}, project).registry == "env.io"
    )
    with pytest.raises(UsageError, match="repository variable MANYLINUX. is 'old'"):
        load({"MLC_VARIABLES": '{"MANYLINUX": "old"}'}, project)
    for text in ("[1]", "{"):
        with pytest.raises(UsageError, match="MLC_VARIABLES is not a JSON object"):
            load({"MLC_VARIABLES": text}, project)


def test_a_prefixed_variable_wins(project: Path) -> None:
    """Base images export PYTHON_VERSION=3.11.7 for themselves: it is read, or overruled."""
    theirs = {"PYTHON_VERSION": "3.11.7"}
    assert load(theirs, project).python_version == "3.11"
    assert load({**theirs, "MLC_PYTHON_VERSION": "3.12"}, project).python_version == "3.12"


def test_names_that_others_gave(project: Path) -> None:
    """GitHub's repository may have capitals, and its token is that of last resort."""
    found = load({"GITHUB_REPOSITORY": "Owner/My_Repo"}, project)
    assert found.image == "table.io/owner/my_repo"
    assert load({"IMAGE_NAME": "A/B", "GITHUB_REPOSITORY": "C/D"}, project).image_name == "a/b"
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
    ("WHEEL_TEST_REQUIRES", "--index-url=x"),
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
        ('registry = "https://x"', "pyproject.toml registry"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, said: str) -> None:
    """A misspelt key is no silent default, and a token in a file is refused."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.mlc-pipeline]\n{text}\n")
    with pytest.raises(UsageError, match=said):
        load({}, tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(FIELDS)), st.text(max_size=60))
def test_any_value_is_read_or_refused(name: str, value: str) -> None:
    """No environment ends in a traceback."""
    try:
        load({name.upper(): value}, Path("/no/such/folder"))
    except UsageError as error:
        assert name not in SECRETS and name.upper() in error.message


def test_sizes_and_durations() -> None:
    """The documented forms; a duration without a unit is not guessed at."""
    sizes = {"2000": 2000, "50 MB": 5e7, "1.5GiB": 1_610_612_736, " 3 kb ": 3000, "0": 0}
    assert {text: parse_size(text) for text in sizes} == sizes
    durations = {"0": 0, "45s": 45, "90m": 5400, "36h": 129_600, "30d": 2_592_000, "1.5h": 5400}
    assert {text: parse_duration(text) for text in durations} == durations
    for bad in ("", "5", "-1d", "1w", "d", "1 d", "1e3s"):
        with pytest.raises(ValueError, match="a duration such as"):
            parse_duration(bad)


def rows() -> list[str]:
    """The rows of docs/settings.md."""
    found = []
    for name, one in FIELDS.items():
        default = shown(name, one.default)
        cells = [f"`{name.upper()}`", f"`{default}`" if default else "", one.metadata["about"]]
        if name in SECRETS:
            del cells[1]
        found.append(f"| {' | '.join(cells)} |")
    return found


def test_docs_are_current() -> None:
    """docs/settings.md has the row of each setting; if one is missing, put it there."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| `")] == rows()
