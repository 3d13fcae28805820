"""The session ``doctor``: what is wrong is found before it costs a run.

Each file has the checks of a subject and a list of them. A check calls what the sessions
call, and lets its PipelineError through, so that a problem has the same sentence and the
same remedy in both places. ``base`` runs all of them at the same time.
"""
