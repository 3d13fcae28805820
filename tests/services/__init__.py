"""Real and simulated services for the tests, all on the loopback range."""
