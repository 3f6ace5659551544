"""Captioning of whole folders and archives: what is listed, computed, kept and written.

    inputs ──> blocks ──> workers (threads, or a process for each device) ──> journal ──> csv, parquet, sidecars, tars
                          (or actors of a Ray cluster)

One mechanism keeps all results. The journal is a JSON Lines file that is appended to; a record in it is final when its
whole line is on disk, until its image has changed or is gone before it was copied. Every other format is a function of
the journal, so that a run that was killed goes on from the journal and ends with the same files, byte for byte.
"""
