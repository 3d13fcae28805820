"""``summary``: the picture of a run, and how runs went over time.

For Actions a Mermaid Gantt chart in the step summary; for people who look rather than
read a self-contained page, ``dist/summary.html``. The runs come from the Actions API
where there is a token, else from the records of local runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.core import cli, console
from tools.core.console import human_size
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT, Settings, load
from tools.github.errors import GitHubError
from tools.github.old import GitHub
from tools.repo.context import current_event
from tools.runs import history as actions_runs
from tools.runs import record as run_record
from tools.runs.page import Point, clock, timeline, trend
from tools.runs.record import RunRecord, critical_path
from tools.workflow import model as workflow

OUTPUT = Path("dist/summary.html")
LIMIT = 20
PATIENCE = 30.0  # seconds that all retrying may take

# -- Mermaid ----------------------------------------------------------------------------

_STATES = {
    "success": "done, ",
    "failure": "crit, ",
    "cancelled": "crit, ",
    "running": "active, ",
}


def _plain(text: str) -> str:
    """Text that Mermaid takes for a name: it has no escapes for these."""
    return re.sub(r"[:;#,]", " ", text)


def gantt(record: RunRecord) -> str:
    """A run as a Mermaid Gantt chart; times count from the run's beginning.

    Source: Mermaid, "Gantt diagrams".
    """
    lines = ["gantt", "    dateFormat X", "    axisFormat %H:%M:%S"]
    for job in record.jobs:
        if not job.legs:
            continue
        lines.append(f"    section {_plain(job.name)}")
        for leg in job.legs:
            if not leg.seconds:
                continue
            state = _STATES.get(leg.result, "")
            start, end = round(leg.started), round(leg.started + leg.seconds)
            name = _plain(leg.label or job.name)
            lines.append(
                f"    {name} {clock(leg.seconds)} :{state}{start}, {max(end, start + 1)}"
            )
    # A colon would end the name: 2:05 min is written 2m05.
    return (
        "\n".join(re.sub(r"(\d+):(\d\d) (min|h)", _without_colon, line) for line in lines)
        + "\n"
    )


def _without_colon(match: re.Match[str]) -> str:
    unit = "m" if match.group(3) == "min" else "h"
    return f"{match.group(1)}{unit}{match.group(2)}"


def markdown(record: RunRecord) -> str:
    """The summary of a run for the step summary."""
    chain = critical_path(record.jobs)
    rows = [
        (job.name, job.result, clock(job.seconds) if job.seconds else "", job.reason)
        for job in record.jobs
    ]
    text = "### The run\n\n```mermaid\n" + gantt(record) + "```\n\n"
    text += console.markdown_table(("job", "result", "longest leg", "why"), rows)
    names = " → ".join(job.name for job in chain)
    total = clock(sum(job.seconds for job in chain))
    text += f"\nCritical path: {names}, {total} of {clock(record.seconds)}.\n"
    if record.artifacts:
        found = [
            (a["name"], human_size(a["size"]), f"`{a['sha256']}`") for a in record.artifacts
        ]
        text += "\n" + console.markdown_table(("artifact", "size", "SHA-256"), found)
    return text


# -- the page ---------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f6f8fa; --text: #1f2328;
  --soft: #59636e; --line: #d1d9e0; --good: #1a7f37; --bad: #cf222e; --warn: #9a6700;
  --none: #8c959f; --busy: #0969da; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --card: #151b23;
  --text: #f0f6fc; --soft: #9198a1; --line: #3d444d; --good: #3fb950; --bad: #f85149;
  --warn: #d29922; --none: #656c76; --busy: #4493f8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1000px; padding: 24px 20px 60px; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 32px 0 10px; }
p { margin: 4px 0; color: var(--soft); }
section, .facts > div { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 14px 16px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 18px; }
.facts b { display: block; font-size: 22px; } .facts > div > span { color: var(--soft); }
.success-text { color: var(--good); } .failure-text { color: var(--bad); }
.cancelled-text { color: var(--warn); }
svg { display: block; width: 100%; height: auto; }
svg text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--text); }
svg .axis, svg .value { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); stroke-width: 1; }
.bar { fill: var(--none); } .bar.success { fill: var(--good); }
.bar.failure { fill: var(--bad); }
.bar.cancelled { fill: var(--warn); } .bar.running { fill: var(--busy); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } tr:last-child td { border-bottom: 0; }
td:first-child, td:nth-child(2) { white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
code { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
"""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML already."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<section class="scroll"><table><tr>{head}</tr>{body}</table></section>'


def _coloured(result: str) -> str:
    kind = html.escape(result.replace(" ", "-"))
    return f'<span class="{kind}-text">{html.escape(result)}</span>'


def success_rate(records: Sequence[RunRecord]) -> float:
    """The share of runs that succeeded, of those that were not cancelled; 0 to 1."""
    ended = [record for record in records if record.result in {"success", "failure"}]
    return sum(r.result == "success" for r in ended) / len(ended) if ended else 0.0


def moving_rate(records: Sequence[RunRecord], window: int = 10) -> list[Point]:
    """The success rate of each run and the ones just before it, in percent."""
    found = []
    for index, record in enumerate(records):
        part = records[max(0, index - window + 1) : index + 1]
        found.append(Point(_name(record), success_rate(part) * 100, record.result))
    return found


def _name(record: RunRecord) -> str:
    return record.began.replace("T", " ").removesuffix("Z")


def _facts(last: RunRecord, records: Sequence[RunRecord]) -> str:
    chain = sum(job.seconds for job in critical_path(last.jobs))
    size = sum(a["size"] for a in last.artifacts)
    facts = [
        (_coloured(last.result), "result"),
        (clock(last.seconds), "wall time"),
        (clock(chain), "critical path"),
        (f"{success_rate(records) * 100:.0f} %", f"success of {len(records)} runs"),
        (human_size(size) if size else "none", "artifacts"),
    ]
    return "".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in facts)


def _image_rows(record: RunRecord) -> list[list[str]]:
    return [
        [
            html.escape(str(image.get("image", ""))),
            human_size(float(image.get("size", 0))),
            f"<code>{html.escape(str(image.get('digest', '')))}</code>",
            "<br>".join(f"<code>{html.escape(str(t))}</code>" for t in image.get("tags", ())),
        ]
        for image in record.images
    ]


def page(records: Sequence[RunRecord]) -> str:
    """A self-contained page: the last run's picture, and the trends of all.

    Args:
        records: The oldest first; at least one.
    """
    last = records[-1]
    event = f"{last.event.get('name', '')} of {last.event.get('ref', '')}"
    parts = [
        "<h1>MLC-LLM pipeline</h1>",
        f"<p>Run {html.escape(f'{last.run}, {event}, {_name(last)} UTC')}</p>",
        f'<div class="facts">{_facts(last, records)}</div>',
        "<h2>The run</h2><section>", timeline(last), "</section>",
    ]  # fmt: skip
    why = [[html.escape(j.name), _coloured(j.result), html.escape(j.reason)] for j in last.jobs]
    parts += ["<h2>Jobs</h2>", _table(("job", "result", "why"), why)]
    if last.artifacts:
        rows = [
            [
                html.escape(a["name"]),
                human_size(a["size"]),
                f"<code>{html.escape(a['sha256'])}</code>",
            ]
            for a in last.artifacts
        ]
        parts += ["<h2>Artifacts</h2>", _table(("file", "size", "SHA-256"), rows)]
    if last.images:
        parts += [
            "<h2>Images</h2>",
            _table(("image", "size", "digest", "tags"), _image_rows(last)),
        ]
    durations = [Point(_name(r), r.seconds, r.result) for r in records]
    sizes = [
        Point(_name(r), float(sum(a["size"] for a in r.artifacts)), r.result) for r in records
    ]
    for title, points, shown in (
        ("Wall time of the last runs", durations, clock),
        ("Success rate, each run with the nine before it", moving_rate(records), _percent),
        ("Size of all artifacts", sizes, human_size),
    ):
        parts += [f"<h2>{title}</h2><section>", trend(title, points, shown), "</section>"]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>MLC-LLM pipeline: {html.escape(last.result)}</title>"
        f"<style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _percent(value: float) -> str:
    return f"{value:.0f} %"


# -- the command ------------------------------------------------------------------------


def find_records(env: Mapping[str, str], source: str, limit: int) -> list[RunRecord]:
    """The runs to show, the oldest first.

    Raises:
        UsageError: There are none, or no token where the Actions API was asked for.
        GitHubError: The API refused.
    """
    settings = load(env)
    repository = current_event(env).repository if source != "local" else ""
    if source == "actions" and not (settings.gh_token and repository):
        raise UsageError(
            "The runs on Actions cannot be asked for without a token and a repository.",
            "Set GH_TOKEN, and GITHUB_REPOSITORY where origin does not tell it.",
        )
    if settings.gh_token and repository:
        try:
            return _from_actions(settings, repository, limit, env.get("GITHUB_RUN_ID", ""))
        except GitHubError as error:
            if source == "actions":
                raise
            console.warn(f"GitHub was asked for its runs, in vain: {error}")
    found = run_record.history(ROOT, limit)
    if not found:
        raise UsageError("There is no run to draw yet.", "Run nox -s pipeline first.")
    return found


def _from_actions(
    settings: Settings, repository: str, limit: int, current: str
) -> list[RunRecord]:
    # A picture is not worth the patience that a release is.
    patience = min(settings.github_time_limit, PATIENCE)
    settings = dataclasses.replace(settings, github_time_limit=patience)
    with GitHub.from_settings(settings) as github:
        graph = workflow.load()
        found = actions_runs.fetch_history(github, repository, graph, limit, current)
    if not found:
        raise GitHubError(f"{repository} has no run of {graph.path.name} that has ended.")
    return found


def work(given: argparse.Namespace) -> int:
    """Draw."""
    try:
        records = find_records(os.environ, given.source, given.limit)
    except PipelineError as error:
        if not console.on_actions() or given.source != "auto":
            raise
        # A picture that cannot be drawn is no reason to fail a run that went well.
        console.warn(f"No summary: {error}")
        return 0
    last = records[-1]
    output = Path(given.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(records), encoding="utf-8")
    console.step_summary(markdown(last))
    if given.mermaid:
        print(gantt(last), end="")
    console.say(f"run {last.run}: {last.result}, {clock(last.seconds)}; page: {output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.runs.__main__``."""
    made = cli.parser("summary", "Draw the last run, and how runs went over time.")
    made.add_argument("--source", choices=("auto", "actions", "local"), default="auto")
    made.add_argument("--limit", type=int, default=LIMIT, help=f"runs in the trends ({LIMIT})")
    made.add_argument("--output", default=str(OUTPUT), help=f"the page ({OUTPUT})")
    made.add_argument("--mermaid", action="store_true", help="the Gantt chart on stdout too")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
