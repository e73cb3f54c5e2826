"""The renderer without weights: a portrait's picture, cut, bent and painted by its landmarks.

No network belongs here, and nothing of LivePortrait but the meaning of its 63 numbers.
"""
