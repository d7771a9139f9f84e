"""Large files read ahead and written in steps that can be resumed."""
