"""The images: planned, built, recorded, tested.

``python -m tools.images development|production`` makes a plan of settings and event
(``plan``; tags in ``names``), looks at the ``engine``, tries the logins (``login``), runs one
``docker buildx build`` (``build``) and writes what came out to ``dist/images/<image>.json``
(``record``). ``test`` reads that, runs containers and looks inside (``probe``), ``sbom`` lists
what is in there, and a release publishes that very digest.
"""
