"""The tokens that every vocabulary begins with, ids 0 to 3."""

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
