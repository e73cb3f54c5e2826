"""The published networks that metrics look with: layers, input, and how their file is loaded.

Module names are the checkpoints', so that a file loads as it is. Which frames go in and what is
made of the output is said in the metric's own file.
"""
