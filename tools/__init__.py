"""The pipeline's logic: each module runs as ``python -m tools.<name>``, without nox."""
