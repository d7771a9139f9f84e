"""The built-in tasks, one YAML file each, and what a task is."""
