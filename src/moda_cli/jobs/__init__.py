"""Many tasks: what works them off, and batches of clips.

`workforce`, `processes` and `cluster` know no clip. A list of clips becomes jobs here, and what
came of each is journalled. How a clip is made is the pipeline's.
"""
