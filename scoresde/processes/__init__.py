r"""Forward processes and their schedules."""
