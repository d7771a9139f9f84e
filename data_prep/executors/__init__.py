"""Where the tasks of a stage run: processes of this machine, Slurm, Ray."""
