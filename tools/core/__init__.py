"""What every command stands on; imports nothing else of ours.

``cli`` is the edge (options in, a sentence and an exit code out), ``settings`` reads the
environment and pyproject.toml, ``console`` talks, ``process`` runs other programs,
``files`` reads and writes, ``http`` makes sessions, ``secrets`` hides what must not show.
"""
