"""The update: whose optimizer owns a variable, when it is due, and its kernels.

Takes summed gradients by path; knows nothing of terms.
"""
