"""Reading checkpoint files of any container, without running anything that they hold."""
