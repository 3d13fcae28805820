"""``notify``: tell a Slack channel how a run went; inert without ``SLACK_WEBHOOK_URL``.

A hook that fails is a warning: it never makes a run fail that went well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from tools.core import cli, console
from tools.core.errors import PipelineError
from tools.core.secrets import Secret, redact
from tools.core.settings import load
from tools.runs.find import find_records
from tools.runs.gantt import clock
from tools.runs.record import JobRecord, RunRecord

TIMEOUT = 10  # seconds
LONGEST = 3000  # characters that Slack takes in a section
_SIGNS = {"success": ":white_check_mark:", "failure": ":x:", "cancelled": ":no_entry_sign:"}
_WORDS = {"success": "succeeded", "failure": "failed"}


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    dry_run: bool = cli.option(False, "print it, send nothing")


def escape(text: str) -> str:
    """Text that means nothing to Slack ("Formatting text for app surfaces")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def link(address: str, text: str) -> str:
    """A link in Slack's mrkdwn, where a bar or a bracket would end the address."""
    safe = address.replace("|", "%7C").replace(">", "%3E").replace("<", "%3C")
    return f"<{safe}|{escape(text)}>"


def _failed(job: JobRecord) -> str:
    """A failed job, with the link of its first failed matrix job."""
    logs = [one.log for one in job.matrix_jobs if one.result == "failure"]
    return link(logs[0], job.name) if logs[:1] and "://" in logs[0] else escape(job.name)


def message(record: RunRecord, address: str = "") -> dict[str, object]:
    """The message of a run (``text`` and ``blocks``): result, failed jobs and links.

    Args:
        record: The run.
        address: Of the run's page; empty for none.
    """
    word = _WORDS.get(record.result, record.result)
    text = f"MLC-LLM pipeline {word}: {record.title} ({clock(record.seconds)})"
    shown = f"{_SIGNS.get(record.result, ':grey_question:')} *{escape(text)}*"
    if failed := [_failed(job) for job in record.jobs if job.result == "failure"]:
        shown += "\nFailed: " + ", ".join(failed)
    if address:
        shown += "\n" + link(address, "Open the run")
    block = {"type": "section", "text": {"type": "mrkdwn", "text": shown[:LONGEST]}}
    return {"text": escape(text), "blocks": [block]}


def send(webhook: Secret, content: Mapping[str, object]) -> str:
    """Send a message; what went wrong, without the hook's address, or an empty text."""
    from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
    from slack_sdk.webhook import WebhookClient

    client = WebhookClient(webhook.reveal(), timeout=TIMEOUT)
    client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    try:
        response = client.send_dict(dict(content))
    except Exception as error:
        # The library raises many kinds, OSError and ValueError among them; none of them
        # may end the run, and all may carry the address, which is a secret.
        return redact(f"{type(error).__name__}: {error}")
    good = response.status_code == 200 and response.body == "ok"
    return "" if good else redact(f"HTTP {response.status_code}: {response.body}")


def run_address(env: Mapping[str, str]) -> str:
    """The page of the run on Actions; empty elsewhere."""
    repository, run = env.get("GITHUB_REPOSITORY"), env.get("GITHUB_RUN_ID")
    server = env.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{repository}/actions/runs/{run}" if repository and run else ""


def work(options: Options) -> int:
    """Send the message, or print what would be sent."""
    webhook = load().slack_webhook_url
    if not webhook and not options.dry_run:
        console.say("nothing to do: SLACK_WEBHOOK_URL is not set")
        return 0
    try:
        content = message(find_records(os.environ, "auto", 1)[-1], run_address(os.environ))
    except PipelineError as error:
        if options.dry_run:
            raise
        console.warn(f"Slack was not notified: {error}")
        return 0
    if options.dry_run:
        console.emit_json(content)
    elif problem := send(webhook, content):
        console.warn(f"Slack was not notified: {problem}")
    else:
        console.say("Slack was notified")
    return 0


main = cli.command("notify", "Tell Slack how the last run went.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
