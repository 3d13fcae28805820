"""The guides: what they show works, and what is generated is current."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest

from tools.core.errors import PipelineError
from tools.core.settings import ROOT
from tools.repo.event import Event
from tools.workflow import decisions
from tools.workflow import docs as workflow_docs
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
    found = decisions.decide(graph, MAIN, ["build-wheels"])
    assert not found["smoke-test"].run
    found = decisions.decide(
        graph, Event("workflow_dispatch", MAIN.ref, force_build=True), ["lint-and-format"]
    )
    assert found["smoke-test"].run


def test_add_a_session(tmp_path):
    """The guide's session is one that nox knows, in the order that the job needs."""
    pytest.importorskip("nox")
    text = (
        (ROOT / "noxfile.py").read_text(encoding="utf-8") + "\n\n" + snippet("session") + "\n"
    )
    (tmp_path / "noxfile.py").write_text(text, encoding="utf-8")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "nox", "--list", "--json", "-s", "smoke"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "MLC_IN_ORDER": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = [entry["session"] for entry in json.loads(done.stdout)]
    assert listed.index("wheels") < listed.index("smoke")


def test_add_a_platform():
    """The guide's matrix entry is one more leg of the wheels."""
    last = "            arch: x64\n    steps:"
    assert CI.count(last) == 1
    added = textwrap.indent(textwrap.dedent(snippet("platform")), " " * 10)
    text = CI.replace(last, f"            arch: x64\n{added}\n    steps:")
    legs = workflow.parse(text).jobs["build-wheels"].matrix.expand()
    assert legs[-1] == {"os": "macos-latest", "platform": "macos", "arch": "arm64"}
    assert len(legs) == 3


def test_add_an_image_test():
    """The guide's matrix has one more test type."""
    line = "        test-type: [basic, import, help]"
    assert CI.count(line) == 1
    graph = workflow.parse(CI.replace(line, snippet("image test")))
    assert {"test-type": "gpu"} in graph.jobs["test-docker-image"].matrix.expand()


def test_add_a_step():
    """The guide's step is part of the job that comes last."""
    graph = workflow.parse(CI + snippet("step") + "\n")
    assert graph.jobs["cleanup"].sessions[-1] == "teams"


def test_workflow_document_is_current():
    """docs/workflow.md shows the workflow as it is."""
    text = (ROOT / workflow_docs.DOCUMENT).read_text(encoding="utf-8")
    assert workflow_docs.renewed(text, workflow.load()) == text


def test_a_changed_workflow_makes_the_document_old():
    """A change of a condition is one that the document must follow."""
    text = (ROOT / workflow_docs.DOCUMENT).read_text(encoding="utf-8")
    changed = workflow.parse(CI.replace("if: ${{ always() }}", "if: ${{ success() }}", 1))
    assert workflow_docs.renewed(text, changed) != text
    with pytest.raises(PipelineError, match="no single place"):
        workflow_docs.renewed("nothing", changed)


def test_the_documents_example_of_an_error():
    """The error that docs/workflow.md shows is what the program says."""
    text = (ROOT / workflow_docs.DOCUMENT).read_text(encoding="utf-8")
    [shown] = re.findall(r"^error: (.*)$", text, re.MULTILINE)
    broken = CI.replace(
        "(needs.lint-and-format.result == 'success' || inputs",
        "(needs.lint-and-format.result = 'success' || inputs",
        1,
    )
    with pytest.raises(workflow.WorkflowError) as caught:
        workflow.parse(broken)
    # The line moves with every edit of the file; the column and the words do not.
    line = re.compile(r"(?<=ci-cd\.yml:)\d+")
    assert line.sub("N", str(caught.value)) == line.sub("N", shown)


@pytest.mark.parametrize("document", ["workflow", "extending"])
def test_links_lead_somewhere(document):
    """Links between documents name files that exist, and commands sessions that exist."""
    text = (ROOT / "docs" / f"{document}.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for session in set(re.findall(r"nox -s (\w+)", text)) - {"smoke", "teams", "docs"}:
        assert f"def {session}(" in noxfile, session
