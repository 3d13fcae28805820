"""GitHub: the client, what its refusals mean, and the packages that PyGithub lacks."""
