"""The recipes of our nets for each row of the paper's tables, as data only.

To change one, change its solver in ``solvers/paper/`` or its net in ``models/paper/``; to add one, add a line to ``RECIPES``
and, if the paper has a row for it, its name to ``ROWS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tuning:
    """The fine-tuning of the small net after compaction.

    solver     its net is a placeholder, which the small net replaces
    overrides  changed fields of the solver: "max_iter=20000"
    teacher    name of the recipe whose net is the teacher; "": none
    """

    solver: str
    overrides: tuple[str, ...] = ()
    teacher: str = ""


@dataclass(frozen=True)
class Cut:
    """Magnitude pruning of the smallest groups of a layer, in addition to the zeros of training.

    group     groups to prune: SHAPE, or FILTER with its bias
    sparsity  fraction of all its groups that is zero afterwards
    """

    layer: str
    group: str
    sparsity: str


@dataclass(frozen=True)
class Recipe:
    """A net, from its solver to its figures.

    model      folder with the dense net: train_test.prototxt, deploy.prototxt
    solver     solver of the training: dense, or with group lasso
    overrides  changed fields of the solver
    weights    name of the recipe whose net training starts from; "": the fillers
    baseline   name of the recipe whose net it is compared with; "": this is the dense net itself
    cuts       groups that are pruned by magnitude before compaction
    net        definition that is compacted; "": the solver's
    tuning     None: the small net is not fine-tuned
    batch      number of images of a timed forward pass
    """

    model: str
    solver: str
    overrides: tuple[str, ...] = ()
    weights: str = ""
    baseline: str = ""
    cuts: tuple[Cut, ...] = ()
    net: str = ""
    tuning: Tuning | None = None
    batch: int = 64


LENET_TUNING = Tuning("solvers/paper/lenet_tuning.prototxt")
MLP_TUNING = Tuning("solvers/paper/mlp_tuning.prototxt")
CONVNET = Recipe(
    "models/cifar10_full",
    "solvers/paper/convnet2.prototxt",
    weights="convnet1",
    baseline="convnet1t",
    net="models/cifar10_full_dropout/train_test.prototxt",
    tuning=Tuning("solvers/paper/convnet_tuning.prototxt"),
    batch=100,
)
"""The small ConvNets without their cuts."""

RECIPES = {
    "lenet1": Recipe("models/lenet", "solvers/lenet.prototxt"),
    "lenet2": Recipe("models/lenet", "solvers/paper/lenet2.prototxt", baseline="lenet1", tuning=LENET_TUNING),
    "lenet3": Recipe("models/lenet", "solvers/paper/lenet3.prototxt", baseline="lenet1", tuning=LENET_TUNING),
    "lenet4": Recipe("models/lenet", "solvers/paper/lenet4.prototxt", baseline="lenet1", tuning=LENET_TUNING),
    "lenet5": Recipe(
        "models/lenet",
        "solvers/paper/lenet5.prototxt",
        baseline="lenet1",
        cuts=(Cut("conv1", "SHAPE", "0.72"), Cut("conv2", "SHAPE", "0.972")),
        tuning=Tuning(LENET_TUNING.solver, ("stepvalue=18000,26100", "max_iter=30000")),
    ),
    "mlp1": Recipe("models/mlp", "solvers/mlp.prototxt"),
    "mlp2": Recipe("models/mlp", "solvers/paper/mlp2.prototxt", baseline="mlp1", tuning=MLP_TUNING),
    "mlp3": Recipe("models/mlp", "solvers/paper/mlp3.prototxt", baseline="mlp1", tuning=MLP_TUNING),
    "convnet1": Recipe("models/cifar10_full", "solvers/cifar10_full.prototxt", batch=100),
    "convnet1t": Recipe(
        "models/cifar10_full_dropout", "solvers/paper/convnet_tuning.prototxt", weights="convnet1", batch=100
    ),
    "convnet2": replace(
        CONVNET,
        cuts=(
            Cut("conv1", "FILTER", "0.5"),
            Cut("conv2", "FILTER", "0.28125"),
            Cut("conv3", "FILTER", "0.015625"),
            Cut("conv2", "SHAPE", "0.455"),  # with those that read a filter which went 60.6 %
            Cut("conv3", "SHAPE", "0.235"),  # likewise 35.6 %
        ),
        net="models/paper/convnet_mirrored.prototxt",
        tuning=Tuning("solvers/paper/convnet_tuning.prototxt", ("weight_decay=0.001",), teacher="convnet1t"),
    ),
    "convnet3": replace(
        CONVNET,
        cuts=(
            Cut("conv1", "FILTER", "0.3125"),
            Cut("conv3", "FILTER", "0.015625"),
            Cut("conv2", "SHAPE", "0.428"),
            Cut("conv3", "SHAPE", "0.098"),
        ),
    ),
}

ROWS = {
    "table1": ("lenet1", "lenet2", "lenet3"),
    "table2": ("lenet1", "lenet4", "lenet5"),
    "table3": ("convnet1t", "convnet2", "convnet3"),
    "figure4": ("mlp1", "mlp2", "mlp3"),
}
"""The recipe of each row of the paper, in its order (``published.TABLES``)."""

DATA = {
    "models/lenet": "mnist",
    "models/mlp": "mnist",
    "models/cifar10_full": "cifar10",
    "models/cifar10_full_dropout": "cifar10",
}
"""Model -> its data set: the folder that `sslnet data NAME` makes."""
