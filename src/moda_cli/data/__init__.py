"""What training and evaluation read, and which of it: feature files, annotations, test lists.

Nothing in here decodes a video (extract does), trains (train does) or measures (evaluate does).
"""
