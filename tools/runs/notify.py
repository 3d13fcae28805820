"""``notify``: tell a Slack channel how a run went; inert without ``SLACK_WEBHOOK_URL``.

A hook that fails is a warning: it never makes a run fail that went well.
"""

import html
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tools.core import cli, console, http
from tools.core.errors import PipelineError
from tools.core.secrets import Secret, redact, remember
from tools.core.settings import load
from tools.runs.history import find_records
from tools.runs.page import clock
from tools.runs.record import RunRecord

LONGEST = 3000  # characters that Slack takes in a section
_WORDS = {
    "success": (":white_check_mark:", "succeeded"),
    "failure": (":x:", "failed"),
    "cancelled": (":no_entry_sign:", "cancelled"),
}


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    dry_run: bool = cli.option(False, "print it, send nothing")


def message(record: RunRecord) -> dict[str, object]:
    """The message of a run (``text`` and ``blocks``): result, failed jobs and links.

    Source: Slack, "Formatting text for app surfaces": what is escaped is what HTML escapes.
    """
    sign, word = _WORDS.get(record.result, (":grey_question:", record.result))
    title = f"MLC-LLM pipeline {word}: {record.title} ({clock(record.seconds)})"
    text, failed = html.escape(title, quote=False), []
    for job in (job for job in record.jobs if job.result == "failure"):
        logs = [one.log for one in job.matrix_jobs if one.result == "failure"]
        name, log = html.escape(job.name, quote=False), next(iter(logs), "")
        failed.append(f"<{log}|{name}>" if "://" in log else name)
    shown = f"{sign} *{text}*" + (f"\nFailed: {', '.join(failed)}" if failed else "")
    if record.address:
        shown += f"\n<{record.address}|Open the run>"
    section = {"type": "mrkdwn", "text": shown[:LONGEST]}
    return {"text": text, "blocks": [{"type": "section", "text": section}]}


def send(webhook: Secret, content: Mapping[str, object]) -> str:
    """Send a message; what went wrong, without the hook's address, or an empty text."""
    address = webhook.reveal()
    try:
        remember(urlsplit(address).path)  # errors and pages of proxies show it alone
        once = http.session(http.retry(0))
        response = once.post(address, json=content, timeout=10)
    except (OSError, ValueError) as error:
        return redact(f"{type(error).__name__}: {error}")
    said = redact(f"HTTP {response.status_code}: {response.text}")[:200]
    return "" if response.text == "ok" else said


def work(options: Options) -> None:
    """Send the message, or print what would be sent."""
    webhook = load().slack_webhook_url
    if not webhook and not options.dry_run:
        return console.say("nothing to do: SLACK_WEBHOOK_URL is not set")
    try:
        content = message(find_records(os.environ, 1)[-1])
    except PipelineError as error:
        if options.dry_run:
            raise
        return console.warn(f"Slack was not notified: {error}")
    if options.dry_run:
        console.emit_json(content)
    elif problem := send(webhook, content):
        console.warn(f"Slack was not notified: {problem}")
    else:
        console.say("Slack was notified")


main = cli.command("notify", "Tell Slack how the last run went.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
