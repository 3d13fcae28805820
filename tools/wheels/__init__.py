"""Wheels: built, repaired, checked and install-tested into ``dist/`` (docs/wheels.md).

``source`` finds what is built and copies it with the version put in; ``build`` makes a
wheel of the copy here, ``container`` in a container; ``repair`` puts the libraries that it
needs into it; ``archive`` reads it and writes its one form; ``check`` installs and tries it;
``abi`` holds its libraries against its companions'; ``dist`` keeps one build at a time and
puts the wheels and ``wheels.json`` in place.
"""
