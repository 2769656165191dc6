"""Why a run failed, and where its time went: bad values, replay, profiles, TensorFlow's errors.

Looks at a run from outside; training does not depend on it.
"""
