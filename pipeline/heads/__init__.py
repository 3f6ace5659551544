"""The head laboratory: what each attention head does, and what happens without it."""
