"""What expressions of the workflow can refer to, as far as it is known here.

Source: "Contexts reference". What is not known is refused where it is looked at, and never
taken for null: an event that is only described has a part of its payload.
"""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from tools.core import machine
from tools.core.settings import github_server
from tools.repo.event import Event
from tools.workflow.expressions import evaluate_text, naming
from tools.workflow.model import Job, Workflow
from tools.workflow.values import Closed, Value, to_string

Outputs: TypeAlias = Mapping[str, Mapping[str, str]]
# Members of github that a run on Actions has in its environment, and nothing else does.
_OF_A_RUN = """action action_path action_ref action_repository action_status actor_id env
    event_path job path repository_id repository_owner_id repositoryUrl run_id run_number
    token triggering_actor workflow_ref workflow_sha workspace""".split()
# Parts of the payload that no other event has.
_OWN = {
    "push": "commits compare created deleted forced head_commit pusher",
    "pull_request": "number pull_request",
    "workflow_dispatch": "inputs",
    **{name: name for name in ("merge_group", "release", "schedule", "workflow_run")},
}
_WITHOUT_ACTION = {"push", "workflow_dispatch", "schedule"}


def payload(event: Event) -> dict[str, Value]:
    """The raw event; what is known of it where there is no event file."""
    if event.payload:
        return cast(dict[str, Value], {**event.payload})
    repository = {"full_name": event.repository, "default_branch": event.default_branch}
    base = {"ref": event.target, "repo": {"full_name": event.repository}}
    name = "somebody/fork" if event.fork else event.repository
    head = {"ref": event.head_ref, "repo": {"full_name": name, "fork": event.fork}}
    parts: dict[str, object] = {
        "push": {"ref": event.ref, "after": event.sha, "deleted": event.deleted},
        "workflow_dispatch": {"inputs": {"force_build": str(event.force_build).lower()}},
        "merge_group": {"merge_group": {"base_ref": f"refs/heads/{event.target}"}},
    }
    own = parts.get(event.name, {})
    if (number := event.pull_request) is not None:
        pull = {"number": number, "head": head, "base": base}
        own = {"number": number, "pull_request": pull}
    action = {"action": event.action} if event.action else {}
    return cast(dict[str, Value], {"repository": repository, **action, **cast(Any, own)})


def _closed(value: Value) -> Value:
    """A part of what is known of an event: other members are not null, but unknown."""
    if isinstance(value, dict):
        why = "it is not known of an event without its file (GITHUB_EVENT_PATH)"
        return Closed(why, {key: _closed(each) for key, each in value.items()})
    return value


def of_event(workflow: Workflow, event: Event) -> dict[str, Value]:
    """The contexts ``github``, ``inputs`` and ``vars``, which is empty: the variables of the
    repository are not known here, and unset ones are empty on GitHub, too.
    """
    whole = payload(event)
    family = "pull_request" if event.pull_request is not None else event.name
    others = " ".join(own for name, own in _OWN.items() if name != family).split()
    others += ["action"] if event.name in _WITHOUT_ACTION else []
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    github: dict[str, Value] = {
        **{name: os.environ.get(f"GITHUB_{name.upper()}", "") for name in _OF_A_RUN},
        "event_name": event.name,
        "event": whole if event.payload else _closed({**dict.fromkeys(others), **whole}),
        "ref": event.ref,
        "ref_name": event.ref_name,
        "ref_type": "tag" if event.ref.startswith("refs/tags/") else "branch",
        "ref_protected": False,
        "sha": event.sha,
        "repository": event.repository,
        "repository_owner": event.repository.partition("/")[0],
        "head_ref": event.head_ref,
        "base_ref": event.base_ref,
        "actor": event.actor,
        "workflow": workflow.title,
        "run_attempt": os.environ.get("GITHUB_RUN_ATTEMPT", "1"),
        "retention_days": "90",
        "secret_source": "Actions",
        **{"server_url": github_server(), "api_url": api, "graphql_url": f"{api}/graphql"},
    }
    inputs: Value = {}
    if event.name == "workflow_dispatch":
        inputs = Closed("only force_build is known here", {"force_build": event.force_build})
    return {"github": Closed("github has no such member", github), "inputs": inputs, "vars": {}}


def variables(workflow: Workflow, event: Event, env: Mapping[str, str]) -> dict[str, str]:
    """The workflow's own ``env``, which an environment on this machine may override."""
    names = {**of_event(workflow, event), **of_runner(env)}
    texts: dict[str, str] = {}
    for key, text in workflow.env.items():
        with naming(f"{key} in {workflow.path.as_posix()}"):
            texts[key] = to_string(evaluate_text(text, names))
    return texts | {key: text for key, text in env.items() if text or key not in texts}


def of_job(
    workflow: Workflow,
    job: Job,
    event: Event,
    results: Mapping[str, str],
    outputs: Outputs | None = None,
) -> dict[str, Value]:
    """The contexts of a job's keys: those of the event, and ``needs``, of which the outputs
    are refused where no job has run (None).
    """
    unknown = Closed("outputs are known only when jobs ran", {})
    needs: dict[str, Value] = {}
    for name in job.needs:
        known: Value = unknown if outputs is None else {**outputs.get(name, {})}
        needs[name] = {"result": results.get(name, ""), "outputs": known}
    return {**of_event(workflow, event), "needs": needs}


def of_runner(env: Mapping[str, str]) -> dict[str, Value]:
    """``runner`` of this machine, and ``secrets``: those that the environment has."""
    found = zip(("os", "arch"), machine.runner(), strict=True)
    known: dict[str, Value] = {name: text for name, text in found if text}
    return {"runner": Closed("it is known on a runner alone", known), "secrets": {**env}}
