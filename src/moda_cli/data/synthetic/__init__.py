"""Speech-and-motion pairs made by rule, for the bundled model: `moda extract --synthetic`.

Sentences (text) are spoken by speech synthesis (voices), their phones shape the lips (visemes),
rules move the rest of the face (behaviour: gaze and head_motion keep time with the delivery), and
corpus writes all of it as feature files.
"""
