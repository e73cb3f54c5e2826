"""Sound and a start to motion (T, 70): the network, its sampling, and the directory of a model.

Nothing here reads a file of sound or a picture, or draws: it hears features and yields motion.
Training it is `train`'s.
"""
