"""The guides: what they show works, and what is generated is current."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from tools.core.errors import UsageError
from tools.core.settings import ROOT
from tools.repo.event import Event
from tools.workflow import decisions
from tools.workflow import model as workflow

GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
CI = (ROOT / workflow.WORKFLOW).read_text(encoding="utf-8")
MAIN = Event("push", "refs/heads/main")


def snippet(name):
    """A snippet of the guide, as it is to be put into the file."""
    found = re.findall(rf"( *)<!-- tried: {name} -->\n *```\w+\n(.*?)\n *```", GUIDE, re.DOTALL)
    assert len(found) == 1, name
    indent, text = found[0]
    return re.sub(rf"(?m)^{indent}", "", text)


def test_add_a_job():
    """The guide's job runs after the wheels, and not if they failed."""
    graph = workflow.parse(CI + "\n" + snippet("job") + "\n")
    found = decisions.decide(graph, MAIN)
    assert found["smoke-test"].run and graph.jobs["smoke-test"].sessions == ("smoke",)
    assert not decisions.decide(graph, MAIN, ["build-wheels"])["smoke-test"].run
    forced = Event("workflow_dispatch", MAIN.ref, force_build=True)
    assert decisions.decide(graph, forced, ["lint-and-format"])["smoke-test"].run


def test_add_a_session(tmp_path):
    """The guide's session is one that nox knows, in the order that the job needs."""
    pytest.importorskip("nox")
    for name in ("noxfile.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    with (tmp_path / "noxfile.py").open("a", encoding="utf-8") as noxfile:
        noxfile.write(f"\n\n{snippet('session')}\n")
    done = subprocess.run(
        [sys.executable, "-m", "nox", "--list", "--json", "-s", "smoke"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "MLC_IN_ORDER": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = [entry["session"] for entry in json.loads(done.stdout)]
    assert listed.index("wheels") < listed.index("smoke")


def test_add_a_platform():
    """The guide's matrix entry is one more job of the matrix."""
    before, last, after = CI.partition("flavour: metal }\n    env:")
    added = textwrap.indent(textwrap.dedent(snippet("platform")), " " * 10)
    text = before + last.replace("}\n", f"}}\n{added}\n") + after
    rows = workflow.parse(text).jobs["build-wheels"].matrix
    assert rows[:-1] == workflow.parse(CI).jobs["build-wheels"].matrix
    assert rows[-1]["os"] == "windows-11-arm"


def test_add_an_image_test():
    """The guide's matrix has one more test type."""
    line = "        test-type: [basic, import, help]"
    graph = workflow.parse(CI.replace(line, snippet("image test")))
    assert {"test-type": "gpu"} in graph.jobs["test-docker-image"].matrix


def test_add_a_step():
    """The guide's step is part of the job that comes last."""
    graph = workflow.parse(CI + snippet("step") + "\n")
    assert graph.jobs["cleanup"].sessions[-1] == "teams"


def code(texts):
    """Names as a cell of a table."""
    return ", ".join(f"`{text}`" for text in texts) or "none"


def workflow_rows():
    """The lines of docs/workflow.md that state what stands in the workflow file."""
    graph = workflow.load()
    for trigger in graph.triggers:
        filters = "; ".join(f"{kind}: {code(names)}" for kind, names in trigger.filters.items())
        yield f"| `{trigger.name}` | {filters or 'any branch or tag'} |"
    for job in graph.jobs.values():
        yield from (f"    {other} --> {job.name}" for other in job.needs)
        condition = "`" + job.condition.replace("|", "\\|") + "`"
        if not job.condition:
            condition = "none: all it needs must succeed"
        yield f"| `{job.name}` | {code(job.needs)} | {code(job.sessions)} | {condition} |"
        values = [", ".join(f"{k} `{v}`" for k, v in row.items()) for row in job.matrix]
        if values:
            yield f"| `{job.name}` | {'; '.join(values)} |"


def outcome_rows():
    """The lines of docs/workflow.md that say what runs for an event."""
    tests = ["test-docker-image"]
    pull = ("pull_request", "refs/pull/1/merge")
    manual = Event("workflow_dispatch", MAIN.ref, force_build=True)
    for title, event, failed in [
        ("push to `main`", MAIN, []),
        ("push to `develop`", Event("push", "refs/heads/develop"), []),
        ("tag `v1.2.3`", Event("push", "refs/tags/v1.2.3"), []),
        (
            "pull request, also from a fork",
            Event(*pull, pull_request=1, base_ref="main", fork=True),
            [],
        ),
        ("push to `main`, tests fail", MAIN, tests),
        ("manual on `main` with force_build, tests fail", manual, tests),
        ("push to another branch", Event("push", "refs/heads/feature/x"), []),
    ]:
        decided = decisions.decide(workflow.load(), event, failed)
        ran = {"success": "runs", "failure": "fails", "skipped": "-"}
        yield f"| {' | '.join([title, *(ran[one.result] for one in decided.values())])} |"


def test_workflow_document_is_current():
    """docs/workflow.md states the workflow as it is, and nothing that is gone from it."""
    text = (ROOT / "docs" / "workflow.md").read_text(encoding="utf-8")
    part = text[text.index("## Graph") : text.index("## What an event would do")]
    stated = [line for line in part.splitlines() if line.startswith(("| `", "    "))]
    assert sorted(stated) == sorted(workflow_rows())
    assert not [row for row in outcome_rows() if row not in text.splitlines()]


def test_the_documents_example_of_an_error():
    """The error that docs/workflow.md shows is what the program says."""
    text = (ROOT / "docs" / "workflow.md").read_text(encoding="utf-8")
    old = "(needs.lint-and-format.result == 'success' || inputs"
    broken = CI.replace(old, old.replace("==", "="), 1)
    with pytest.raises(UsageError) as caught:
        workflow.parse(broken)
    assert f"error: {caught.value.message}\n" in text


@pytest.mark.parametrize("document", ["workflow", "extending"])
def test_links_lead_somewhere(document):
    """Links between documents name files that exist, and commands sessions that exist."""
    text = (ROOT / "docs" / f"{document}.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for session in set(re.findall(r"nox -s (\w+)", text)) - {"smoke", "teams"}:
        assert f"def {session}(" in noxfile, session
