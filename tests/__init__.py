"""The tests; they mirror ``tools/``."""
