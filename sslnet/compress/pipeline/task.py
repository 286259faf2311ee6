"""The task of a pipeline: its settings, and the solver and iterations that follow from them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.control.targets import Targets
from sslnet.compress.evaluation import epoch_batches
from sslnet.compress.pipeline.fingerprint import file_mark
from sslnet.compress.pipeline.merge_phases import merge_nets, names_apart
from sslnet.net.net import Net
from sslnet.prototxt import Definition

EPOCHS = {"baseline": 20, "sparsify": 10, "prune": 5, "finetune": 5}
"""Number of epochs of each training stage if no solver is given."""
ROUNDS = 3
"""Number of rounds of the method prune, in runs that are long enough."""
SHORTEST_ROUND = 400
"""Number of iterations between two rounds from which on there are several."""
EPOCH = 200
"""Minimum number of iterations that count as an epoch, and the number for data of unknown size. Finding a strength takes
iterations, however small the data set; within too few, the strength would have to be so high that accuracy suffers."""
SOLVER = """# Made by sslnet compress: momentum, a rate that drops twice.
net: {net}
base_lr: {base_lr:g}
lr_policy: "multistep"
gamma: 0.1
stepvalue: {first}
stepvalue: {second}
momentum: 0.9
weight_decay: 0.0005
average_loss: 20
max_iter: {max_iter}
"""


@dataclass(frozen=True)
class Task:
    """Settings of a pipeline.

    model, solver        paths; one of them is needed. A model replaces the net that the solver names
    weights              path of trained weights; None: the net is trained first
    iterations, finetune, baseline_iterations   None: from the solver (half of it to fine-tune), or EPOCHS without one
    base_lr              learning rate of the default solver, used if none is given
    teach                whether the baseline teaches the small net; None: with the method prune, where it can
    controls             whether to train the nets to compare with, too (``controls``); with them baseline_iterations says
                         how long the given weights were trained
    method               a name in ``method.STAGES``; None: chosen by what is given (``method.choose_method``)
    rounds, by, repair, share_out, images   of the methods prune and one-shot: number of rounds, None: ROUNDS, or one for
                         one-shot and in short runs; the others as for ``prune_channels``, None: its defaults
    """

    targets: Targets
    folder: str
    model: str | None = None
    solver: str | None = None
    weights: str | None = None
    overrides: tuple[str, ...] = ()
    iterations: int | None = None
    finetune: int | None = None
    baseline_iterations: int | None = None
    base_lr: float | None = None
    seed: int | None = None
    teach: bool | None = None
    controls: bool = False
    method: str | None = None
    rounds: int | None = None
    by: str | None = None
    repair: str | None = None
    share_out: str | None = None
    images: int | None = None

    @property
    def overrides_policy(self) -> bool:
        """Whether the learning rate policy was set by hand."""
        return any(text.split("=")[0].strip() == "lr_policy" for text in self.overrides)

    def pruning_options(self) -> dict[str, object]:
        """The given options of the methods prune and one-shot alone."""
        options = {"--rounds": self.rounds, "--by": self.by, "--repair": self.repair, "--share-out": self.share_out}
        options["--images"] = self.images
        return {name: value for name, value in options.items() if value is not None}

    def options(self) -> dict[str, str]:
        """The options that must be equal to continue in a folder; files by fingerprints of their content.

        ``controls`` is not among them: it adds stages to a folder, and changes none.
        """
        files = {"--model": self.model, "--solver": self.solver, "--weights": self.weights}
        marked = {name: path and f"{os.path.basename(path)} ({file_mark(path)})" for name, path in files.items()}
        others = {
            f"--target-{self.targets.of}": self.targets.text,
            "--speedup-batch": self.targets.batch,
            "--set": " ".join(self.overrides) or None,
            "--iterations": self.iterations,
            "--finetune": self.finetune,
            "--baseline-iterations": self.baseline_iterations,
            "--base-lr": self.base_lr,
            "--seed": self.seed,
            "--cut": "given" if self.targets.cut else None,
            "--teach": "given" if self.teach else None,
            "--no-teach": "given" if self.teach is False else None,
            "--method": self.method,
            **self.pruning_options(),
        }
        return {name: str(value) for name, value in (marked | others).items() if value is not None}

    def solver_definition(self) -> Definition:
        """The solver of all training stages: the given one, or a default solver for the model."""
        if self.solver is not None:
            solver = prototxt.apply_overrides(prototxt.read_solver(self.solver), self.overrides)
            if self.model is not None:
                for name in ("net_param", "train_net", "train_net_param", "test_net", "test_net_param"):
                    solver.message.ClearField(name)
                solver.message.net = self.model
            return merge_nets(solver) if names_apart(solver) else solver
        assert self.model is not None
        train = Net(prototxt.read_net(self.model), phase=pb.TRAIN, lean=True)
        iterations = EPOCHS["sparsify"] * max(EPOCH, epoch_batches(train) or 0)
        text = SOLVER.format(
            net=json.dumps(self.model),
            base_lr=0.01 if self.base_lr is None else self.base_lr,
            max_iter=iterations,
            first=iterations * 7 // 10,
            second=iterations * 9 // 10,
        )
        made = prototxt.parse(text, pb.SolverParameter, os.path.join(self.folder, "solver.prototxt"))
        return prototxt.apply_overrides(made, self.overrides)

    def iterations_of(self, stage: str, max_iter: int) -> int:
        """Number of iterations that a stage trains.  max_iter: that of the solver"""
        given = {
            "baseline": self.baseline_iterations,
            "sparsify": self.iterations,
            "prune": self.iterations,
            "finetune": self.finetune,
        }[stage]
        if given is not None:
            return given
        if self.solver is not None:
            return -(-max_iter // 2) if stage in ("finetune", "prune") else max_iter
        return max_iter * EPOCHS[stage] // EPOCHS["sparsify"]
