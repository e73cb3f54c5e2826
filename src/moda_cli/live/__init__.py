"""A face for a voice, while it speaks.

face makes frames of sound hop by hop and knows no clock; session keeps real time between whoever
brings sound and whoever shows frames; speaker looks at a portrait once for any number of sessions.
"""
