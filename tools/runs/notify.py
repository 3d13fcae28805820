"""``notify``: tell a Slack channel how a run went; inert without ``SLACK_WEBHOOK_URL``.

A hook that fails is a warning: it never makes a run fail that went well.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tools.core import cli, console
from tools.core.errors import PipelineError
from tools.core.secrets import Secret, redact
from tools.core.settings import load
from tools.runs.__main__ import find_records
from tools.runs.page import clock
from tools.runs.record import JobRecord, RunRecord

TIMEOUT = 10  # seconds
_SIGNS = {
    "success": ":white_check_mark:",
    "failure": ":x:",
    "cancelled": ":no_entry_sign:",
}


def escape(text: str) -> str:
    """Text that means nothing to Slack.

    Source: Slack, "Formatting text for app surfaces", escaping text.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def link(address: str, text: str) -> str:
    """A link in Slack's mrkdwn, where a bar or a bracket would end the address."""
    safe = address.replace("|", "%7C").replace(">", "%3E").replace("<", "%3C")
    return f"<{safe}|{escape(text)}>"


def _failed(job: JobRecord) -> str:
    """A failed job, with the link of its first failed leg."""
    leg = next((leg for leg in job.legs if leg.result == "failure"), None)
    if leg is not None and leg.log.startswith("https://"):
        return link(leg.log, job.name)
    return escape(job.name)


def message(record: RunRecord, address: str = "") -> dict[str, Any]:
    """The message of a run: result, failed jobs and links.

    Args:
        record: The run.
        address: Of the run's page; empty for none.

    Returns:
        ``text`` (shown in notifications) and ``blocks``.
    """
    event = f"{record.event.get('name', '')} of {record.event.get('ref', '')}"
    said = {"success": "succeeded", "failure": "failed"}.get(record.result, record.result)
    text = f"MLC-LLM pipeline {said}: {event} ({clock(record.seconds)})"
    shown = f"{_SIGNS.get(record.result, ':grey_question:')} *{escape(text)}*"
    failed = [_failed(job) for job in record.jobs if job.result == "failure"]
    if failed:
        shown += "\nFailed: " + ", ".join(failed)
    if address:
        shown += "\n" + link(address, "Open the run")
    # Slack refuses a section of more than 3000 characters.
    block = {"type": "section", "text": {"type": "mrkdwn", "text": shown[:3000]}}
    return {"text": escape(text), "blocks": [block]}


def send(webhook: Secret, content: Mapping[str, Any], timeout: int = TIMEOUT) -> str:
    """Send a message; what went wrong, without the hook's address, or an empty text."""
    from slack_sdk.http_retry.builtin_handlers import (
        ConnectionErrorRetryHandler,
        RateLimitErrorRetryHandler,
    )
    from slack_sdk.webhook import WebhookClient

    handlers = [
        ConnectionErrorRetryHandler(max_retry_count=1),
        RateLimitErrorRetryHandler(max_retry_count=1),
    ]
    try:
        client = WebhookClient(webhook.reveal(), timeout=timeout, retry_handlers=handlers)
        answer = client.send(text=content["text"], blocks=content["blocks"])
    except Exception as error:
        # The library raises many kinds, OSError and ValueError among them; none of them
        # may end the run, and all may carry the address, which is a secret.
        return redact(f"{type(error).__name__}: {error}")
    if answer.status_code != 200 or answer.body != "ok":
        return redact(f"HTTP {answer.status_code}: {answer.body}")
    return ""


def run_address(env: Mapping[str, str]) -> str:
    """The page of the run on Actions; empty elsewhere."""
    repository, run = env.get("GITHUB_REPOSITORY"), env.get("GITHUB_RUN_ID")
    server = env.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{repository}/actions/runs/{run}" if repository and run else ""


def work(given: argparse.Namespace) -> int:
    """Send the message, or say what would be sent."""
    webhook = load().slack_webhook_url
    if not webhook and not given.dry_run:
        console.say("nothing to do: SLACK_WEBHOOK_URL is not set")
        return 0
    try:
        content = message(find_records(os.environ, "auto", 1)[-1], run_address(os.environ))
    except PipelineError as error:
        if given.dry_run:
            raise
        console.warn(f"Slack was not told: {error}")
        return 0
    if given.dry_run:
        console.emit_json(content)
        return 0
    problem = send(webhook, content)
    if problem:
        console.warn(f"Slack was not told: {problem}")
    else:
        console.say("Slack was told")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.runs.notify``."""
    made = cli.parser("notify", "Tell Slack how the last run went.")
    made.add_argument("--dry-run", action="store_true", help="print the message, send nothing")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
