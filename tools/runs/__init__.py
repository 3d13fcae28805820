"""Runs of the pipeline: what became of them, as data, pictures and messages.

``record`` is a run as data, written by the local run (``dist/runs/<run>/run.json``) and read
off GitHub's Actions API by ``history``; ``page`` draws records as a web page, ``gantt`` as a
chart for the step summary; ``notify`` writes to Slack. ``python -m tools.runs`` is the session
``summary``.
"""
