"""MoDA talking heads: one portrait and one speech recording in, a video out."""

__version__ = "0.1.0"
