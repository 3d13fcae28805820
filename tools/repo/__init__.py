"""What the repository tells: git, the event that triggered us, versions.

``git`` asks, ``event`` reads what Actions says, ``versions`` are PEP 440; ``context`` reads
all of it once, with the settings, for a command.
"""
