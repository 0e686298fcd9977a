"""Typed configuration of training a derived network: schema and validation only.

Nothing is read, built or run here; see `adarts_jax.config`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adarts_jax.config import ImagesConfig, Settings
from adarts_jax.config_rules import check_rates, check_source
from adarts_jax.config_types import (
    Cells,
    Channels,
    Count,
    Epochs,
    NotNegative,
    OnNan,
    PathText,
    Pixels,
    Positive,
    Probability,
    Seed,
    Share,
)


class RetrainDataConfig(ImagesConfig):
    """Images and how they are divided, augmented and normalised."""

    held_out_fraction: Share = 0.0
    """share of the training images that is not trained on but chooses an epoch; 0, as
    in the papers, trains on all"""
    held_out_seed: Seed = 0
    """which images are held out; apart from seed, so that runs can be compared"""
    test_split: PathText | None = "test"
    """name of the test images in the data; none for no test"""
    cutmix_probability: Probability = 0.0
    """share of the batches in which a box of each image comes from another image"""
    cutmix_beta: Positive = 1.0
    """both parameters of the Beta distribution of the area that CutMix keeps"""
    crop_size: Pixels = 0
    """side in pixels of a random part of each image, of 8 to 100 percent of its area,
    that is stretched to this size; tests see the centre; 0 for whole images"""
    color_jitter: tuple[NotNegative, NotNegative, NotNegative, NotNegative] = (
        0,
        0,
        0,
        0,
    )
    """largest change of brightness, contrast, saturation (relative) and hue (turns, up
    to 0.5), such as 0.4,0.4,0.4,0.2; only with crop_size"""


class DerivedNetworkConfig(Settings):
    """Size of the derived network, and how it computes."""

    init_channels: Channels = 16
    """channels of the first cell; doubled at every reduction cell"""
    num_cells: Cells = 5
    """cells in a row; those at one and at two thirds reduce the resolution"""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """classes; none takes those of the data, a number must be the same"""
    stem: Literal["cifar", "imagenet", "auto"] = "auto"
    """cifar (keeps the resolution), imagenet (an eighth of it) or auto (by the size of
    the images)"""
    auxiliary: bool = False
    """a second classifier at two thirds of the depth, while training; true or false"""
    drop_path_rate: Share = 0.0
    """probability of dropping an operation of an image; rises from 0 in the first epoch
    to nearly this in the last"""
    precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
    """arithmetic: float32, tf32 (its products with 10 bits on NVIDIA GPUs, the same
    elsewhere) or bfloat16; weights are float32 in any case"""
    remat: bool = False
    """compute the inside of cells twice, for a fraction of the memory of a GPU; true or
    false"""


class RetrainWeightsConfig(Settings):
    """SGD of the weights, its learning rate by epoch, and the loss."""

    learning_rate: Positive = 0.025
    """highest, per step"""
    schedule: Literal["cosine", "exponential", "linear"] = "cosine"
    """how the rate falls per epoch: cosine (to the minimum), exponential (by decay) or
    linear (to a small rate, and over the last five epochs to 0, as in PC-DARTS)"""
    schedule_epochs: Count | None = None
    """epochs over which the rate falls; none for all"""
    min_learning_rate: NotNegative = 0.0
    """where the cosine ends, per step"""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.97
    """factor per epoch of the exponential schedule"""
    warmup_epochs: Epochs = 0
    """first epochs, in which the rate rises in equal steps to the highest"""
    momentum: Share = 0.9
    """share of the previous update that is kept"""
    weight_decay: NotNegative = 3e-4
    """L2 penalty, added to the gradient after clipping"""
    gradient_clip: Positive | None = 5.0
    """largest global norm of the gradient; none for no clipping"""
    auxiliary_weight: NotNegative = 0.4
    """weight of the loss of the auxiliary classifier"""
    label_smoothing: Share = 0.0
    """share of the probability that is spread evenly over the classes"""
    ema_decay: Share | None = None
    """share kept per step of a running mean of the weights, which is then tested and
    saved in their place, such as 0.999; none for no mean"""


class EvaluationConfig(Settings):
    """When the network is tested, and which number is the result."""

    every: Count = 1
    """epochs between two tests; the last epoch is always tested"""
    first_epoch: Epochs = 0
    """first epoch that is tested"""
    batch_size: Count = 128
    """images per step of a test; changes no result"""
    headline: Literal["last_epoch", "held_out_selected", "best_on_test"] = "last_epoch"
    """which accuracy is the result: that of the last epoch, of the epoch with the best
    held-out accuracy, or the best on the test images (the protocol of several papers,
    too optimistic since it chooses on the test)"""


class TrainingConfig(Settings):
    """How a derived network is trained, whatever its genotype."""

    deterministic: bool = False
    """the same numbers in every run of a seed on a GPU too, true or false; slower
    there, no difference on a CPU"""
    epochs: Count = 30
    """passes over the training images"""
    batch_size: Count = 32
    """images per step"""
    on_nan: OnNan = "stop"
    """when a loss or gradient is not finite: stop, or rollback to the beginning of the
    epoch, with other random numbers, at most three times in a run"""
    data: RetrainDataConfig = RetrainDataConfig()
    network: DerivedNetworkConfig = DerivedNetworkConfig()
    weights: RetrainWeightsConfig = RetrainWeightsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_source(self.data.source, self.data.name, self.data.data_dir)
        _check_epochs(self)
        _check_data(self)
        _check_headline(self)
        return self


class RetrainConfig(TrainingConfig):
    """Training of a derived network. The defaults are configs/retrain_digits.toml."""

    genotype: str
    """published name such as darts_v2, or file such as RUN/genotype.json"""
    seed: Seed = 0
    """of everything random in the run"""


class SelectDataConfig(RetrainDataConfig):
    """Images and how they are divided, augmented and normalised."""

    held_out_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """share of the training images that is not trained on but ranks the genotypes"""
    test_split: None = None
    """none: a selection sees no test image"""


class SelectConfig(TrainingConfig):
    """Several genotypes trained briefly, ranked on held-out training images.

    The selection of DARTS and Att-DARTS. The defaults are configs/select_digits.toml.
    """

    genotypes: tuple[str, ...] = ()
    """published names, files, or folders of search runs"""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1)
    """each genotype is trained once with each, such as 0,1,2"""
    epochs: Count = 10
    """passes over the training images"""
    data: SelectDataConfig = SelectDataConfig()

    @model_validator(mode="after")
    def _check_seeds(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ, such as 0,1,2")
        return self


def _check_epochs(config: TrainingConfig) -> None:
    weights, epochs = config.weights, config.epochs
    check_rates(
        epochs,
        warmup_epochs=weights.warmup_epochs,
        lowest=weights.min_learning_rate,
        highest=weights.learning_rate,
    )
    if (weights.schedule_epochs or epochs) < epochs:
        raise ValueError(
            f"weights.schedule_epochs = {weights.schedule_epochs} must be at least "
            f"epochs = {epochs}, or none"
        )


def _check_data(config: TrainingConfig) -> None:
    data = config.data
    if data.cutmix_probability and config.batch_size < 2:
        raise ValueError(
            f"data.cutmix_probability = {data.cutmix_probability} mixes images of a "
            f"batch, but batch_size = {config.batch_size}; use batch_size = 2 or more, "
            "or data.cutmix_probability = 0"
        )
    if data.crop_size and data.pad:
        raise ValueError(
            f"data.crop_size = {data.crop_size} and data.pad = {data.pad} are two ways "
            "to crop; set one of them to 0"
        )
    if any(data.color_jitter) and not data.crop_size:
        raise ValueError(
            f"data.color_jitter = {','.join(map(str, data.color_jitter))} comes with "
            "data.crop_size; set it, such as 224"
        )
    if data.color_jitter[3] > 0.5:
        raise ValueError(
            f"data.color_jitter: a hue of {data.color_jitter[3]} is more than half a "
            "turn, 0.5"
        )


def _check_headline(config: TrainingConfig) -> None:
    headline, data = config.evaluation.headline, config.data
    if headline == "held_out_selected" and not data.held_out_fraction:
        raise ValueError(
            "evaluation.headline = held_out_selected needs held-out images; set "
            "data.held_out_fraction, such as 0.1"
        )
    if headline == "best_on_test" and data.test_split is None:
        raise ValueError(
            "evaluation.headline = best_on_test needs data.test_split, such as test"
        )
