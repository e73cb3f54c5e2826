"""Feature files to a model directory: what `moda train` does.

Presets and settings (standard library only); which clips a run reads (clip_files) and what a step
sees of them (dataset, loader); losses and objectives of a motion generator and of the sync expert
(alse); how a run begins or goes on (loop), its steps (trainer, optimiser, regions), one process or
many (parallel); what it says (pace), what is kept (checkpoint, log) and pushed to the Hub. The
motion generator's network is generator's.
"""
