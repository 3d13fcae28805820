"""Old, untagged versions of the container package go; see docs/cleanup.md.

``read`` asks GitHub for the versions and the registry for the manifests that matter, which
``memory`` keeps between runs; ``package`` knows what needs what, ``plan`` decides (both
pure), ``run`` deletes, looks again and verifies; ``report`` tells.
"""
