"""Side-by-side ratios against what a user would run instead; see ``__main__``."""
