"""Suites of problems, the tasks that run on them, and the rows and folders of results."""
