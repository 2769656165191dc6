"""Side-by-side comparisons with what a user would pick instead."""
