"""The images: planned, built, recorded, tested.

``python -m tools.images development|production`` makes a plan of settings and event
(``plan``; tags and labels in ``names``), looks at the Docker engine (``engine``), logs in
(``login``), runs one ``docker buildx build`` (``build``) and writes what came out to
``dist/images/<image>.json`` (``record``), which is how an image goes from job to job:
``test`` reads it, runs the image's containers and looks inside (``probe``), ``sbom``
lists what is in it, and a release publishes that very digest.
"""
