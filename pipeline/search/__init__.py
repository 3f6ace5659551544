"""From a step function to captions: settings, which words may follow, which beams go on, and what was found.

config ──> wording ──> constraints ──┐
                                     v
captions ──> generation: step, mask, select (selection), record (hypotheses), until all have ended
"""
