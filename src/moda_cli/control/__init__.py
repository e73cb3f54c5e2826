"""What is asked for when, and what is done to motion: timelines, edits, the stillness of pauses."""
