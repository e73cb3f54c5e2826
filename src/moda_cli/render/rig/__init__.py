"""The renderer without weights: a portrait's picture, bent and painted by the mesh of its face.

`controls` says what articulators ask, `fields` and `expression` bend the face, `head` turns it in
depth, `mouth` and `eyes` paint what the picture hides, `still` is what is sampled, `rig` puts a
frame together. No network belongs here, and nothing of LivePortrait but the meaning of its 63
numbers.
"""
