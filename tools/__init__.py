"""The pipeline: a folder a subject, a file an idea; see CONTRIBUTING.md."""
