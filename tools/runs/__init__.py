"""Runs of the pipeline: what became of them, as data, pictures and messages.

``record`` is a run as data, written by the local run (``dist/runs/<run>/run.json``);
``history`` finds them, there or on GitHub's Actions API; ``page`` draws them as a web page;
``notify`` writes to Slack. ``python -m tools.runs`` is the session ``summary``.
"""
