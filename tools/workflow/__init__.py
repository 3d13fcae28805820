"""The workflow file: read, its conditions evaluated, planned, and run on this machine.

``model`` turns ``.github/workflows/ci-cd.yml`` into jobs and steps; ``triggers`` says
whether an event starts it (``changes`` asks git for files); ``decisions`` evaluates the
conditions (``expressions``, of whose ``values`` the rules are GitHub's, with ``contexts``)
and says which jobs run, and why. ``plan`` is the command that prints this with the images'
tags and the release; ``local`` runs the jobs: ``commands`` reads what a step runs, ``jobs``
says what of it runs here, ``runner`` runs it.
"""
