"""No single change of the workflow goes unnoticed: a night's work (CAMPAIGN above 1)."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e.mutations import CI, MUTATIONS, SETUP, Mutation, caught_by
from tests.services.project import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_the_list_fits_the_workflow(mutation: Mutation, tmp_path: Path) -> None:
    """Each change can still be made, in one place."""
    for name in (CI, SETUP):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    mutation.apply(tmp_path)
    assert any((tmp_path / n).read_text() != (ROOT / n).read_text() for n in (CI, SETUP))


if int(os.environ.get("CAMPAIGN", "1")) > 1 and sys.platform == "linux":

    @pytest.mark.campaign
    @pytest.mark.engine
    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
    def test_every_change_is_noticed(mutation: Mutation) -> None:
        """By a linter, by a test that reads the workflow, or by its run."""
        assert caught_by(mutation), "nothing noticed"
