"""Runs of the pipeline: what became of them, drawn and told.

``record`` is a run as data, written by the local run (``dist/runs/<run>/run.json``) and read
off GitHub's Actions API by ``history``; ``page`` draws records as a web page, ``gantt`` as a
chart for the step summary; ``notify`` tells Slack. ``python -m tools.runs`` is the session
``summary``.
"""
