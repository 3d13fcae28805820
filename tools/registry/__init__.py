"""What is in a container registry: read, never written.

``client`` asks (:func:`~tools.registry.client.connect`), ``login`` answers the registry's
challenge with a token, ``manifest`` checks what came and makes types of it: tags and
digests go in, :class:`~tools.registry.manifest.Descriptor` and
:class:`~tools.registry.manifest.Manifest` come out.

Source: OCI distribution specification 1.1; section names stand where a rule is used.
"""
