"""Many clips: lists of jobs, their journal, and what comes of each."""
