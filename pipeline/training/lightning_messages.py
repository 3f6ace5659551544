"""What Lightning says that users need not read."""

from __future__ import annotations

HARMLESS = (
    "LightningCLI.s args parameter is intended",
    "The '.*_dataloader' does not have many workers",
    "You're using the WeightAveraging callback with a model that overrides",
    "Found keys that are in the model state dict but not in",
    "The number of training batches .* is smaller than the logging interval",
    "Checkpoint directory .* exists and is not empty",
    "Experiment logs directory .* exists and is not empty",
    "Mean of empty slice",
    "Trying to infer the `batch_size` from an ambiguous collection",
    ".*GPU available but not used.*",
    ".*module\\(s\\) in eval mode at the start of training",
    ".*isinstance\\(treespec, LeafSpec\\)",
)
