"""Many clips: lists of jobs, their journal, and the processes and clusters that work them off."""
