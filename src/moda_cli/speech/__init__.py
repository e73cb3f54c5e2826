"""What a generator hears: (T, layers, channels), one row per frame at 25 fps, of a 16 kHz wave.

Reading and resampling sound is `media`'s; what is measured in a finished clip is `metrics`'.
"""
