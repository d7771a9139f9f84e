"""Starting, stopping and watching the processes of a run."""
