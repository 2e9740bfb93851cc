"""The log folded again: rows made anew, and seen to be what they should be."""
