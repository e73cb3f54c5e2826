"""Motion to frames of one portrait: `renderer` says what every renderer does.

A renderer is made of a portrait and draws rows of motion; it edits no motion, hears no sound and
writes no file. Finding and measuring the face is `face`'s.
"""
