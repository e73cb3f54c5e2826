"""Feature files to a model directory: what `moda train` does.

Presets and settings (standard library only), the dataset, losses and objectives of a motion
generator and of the sync expert (alse), the loop, one process or many (parallel), what is kept
(checkpoint, log) and pushed to the Hub. The motion generator's network is generator's.
"""
