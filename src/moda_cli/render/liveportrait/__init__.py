"""The renderer with LivePortrait's networks (arXiv:2407.03168): S, W and G, and the paste.

`networks` runs them as published, `engine` fast and equal to that. F and M, which look at a
portrait, are `face.extractors`.
"""
