"""Edits that a team makes in a year. Each makes a change, yields, and asserts it is still there."""
