"""The GitHub release of a version.

``checks`` reads tag, wheels and image records and collects all that stands against the
release; ``contents`` (with ``notes`` and ``sbom``) fills ``dist/release/`` and plans what is
published, as plain data; ``publish`` brings it about on GitHub. See ``docs/releasing.md``.
"""
