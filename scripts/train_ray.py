"""Train on a Ray cluster: ``python scripts/train_ray.py PROCESSES`` and what ``latentcap train fit`` takes."""

import os
import sys
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

LIGHTNING = (  # Lightning learns from Ray who trains together
    "--trainer.strategy=ray.train.lightning.RayDDPStrategy",
    "--trainer.strategy.find_unused_parameters=true",
    "--trainer.plugins+=ray.train.lightning.RayLightningEnvironment",
)


def fit(given: dict[str, Any]) -> None:
    from latentcap.cli.train import main

    os.chdir(given["folder"])
    main(["fit", *given["arguments"], *LIGHTNING])


if __name__ == "__main__":
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15, which hardly gets a turn on a busy machine
    ray.init()  # the cluster that this machine is a node of, or one that is started here
    processes, *arguments = sys.argv[1:]
    scaling = ScalingConfig(num_workers=int(processes), use_gpu="GPU" in ray.cluster_resources())
    given = {"folder": os.getcwd(), "arguments": arguments}
    TorchTrainer(fit, train_loop_config=given, scaling_config=scaling).fit()
