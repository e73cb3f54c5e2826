"""One clip to numbers, a file a word of the results table, and the distance between two sets.

Weights-free: mouth, stability, and video, which says all of them of one file. By a network: fid,
fvd, fsim, sync, smoothness, each a function of a network and frames (frechet is the distance behind
fid and fvd, face_track the face that sync looks at). What many clips say together is evaluate's.
"""
