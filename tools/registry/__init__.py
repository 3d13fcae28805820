"""What is in a container registry: read, never written.

``client`` asks (:func:`~tools.registry.client.connect`), ``manifest`` checks what came and
makes types of it: tags and digests go in, descriptors and manifests come out.

Source: OCI distribution specification 1.1; section names stand where a rule is used.
"""
