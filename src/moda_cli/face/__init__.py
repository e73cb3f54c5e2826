"""What is seen in a portrait: where its faces are, their mesh, their crops and what networks read.

Nothing here animates; a renderer takes the landmarks and never a network.
"""
