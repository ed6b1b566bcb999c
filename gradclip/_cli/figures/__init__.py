"""Figures of gradient norms, drawn with matplotlib."""
