"""Typed configurations: schema and validation only.

Nothing is read, built or run here. The text under a field becomes its ``--help`` text.
Library functions take plain arguments; only programs and loops see these models.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adarts_jax.config_rules import (
    check_channels,
    check_method,
    check_order,
    check_rates,
    check_searches,
    check_share,
    check_source,
    check_warmup,
)
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
    Seed,
    Share,
    Side,
)
from adarts_jax.methods import METHODS

MethodName = Literal[
    "alpha_adarts",
    "adarts",
    "pc_darts",
    "darts",
    "att_darts_s",
    "att_darts_p",
    "darts_with_attention",
    "g_darts_a",
    "g_pc_darts_a",
    "random",
]


class Settings(BaseModel):
    """Base of all configurations: immutable, hashable, no unknown field."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class ImagesConfig(Settings):
    """Images and how they are normalised and augmented."""

    source: Literal["digits", "tfds", "folder", "npz"] = "digits"
    """digits (built in), tfds (prepared TensorFlow Datasets), folder
    (data_dir/train/class/*.png|jpg) or npz (arrays)"""
    name: PathText | None = None
    """which data set in data_dir, such as cifar10 for tfds"""
    data_dir: PathText | None = None
    """where the data is: a folder, or the file for npz"""
    image_size: Side | None = None
    """side in pixels to which images are stretched; none keeps their size"""
    channels: Literal[1, 3] | None = None
    """1 (luminance) or 3 (RGB); none keeps what the data has"""
    num_examples: Annotated[int, Field(ge=2)] | None = None
    """use only this many training images, for a short run; none uses all"""
    pad: Pixels = 1
    """zero padding before the random crop, pixels per side; 0 for no crop"""
    flip: bool = False
    """mirror half of the images, true or false"""
    cutout_size: Pixels = 0
    """side of the square blanked out in every image, pixels; 0 for none"""
    normalization: Literal["dataset", "cifar10", "cifar100", "imagenet"] = "dataset"
    """mean and deviation: of the training images (dataset) or the published numbers of
    a data set"""


class DataConfig(ImagesConfig):
    """Images and how they are divided, augmented and normalised."""

    weight_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """share of the training images that trains the weights; the rest trains the
    architecture"""
    split: Literal["random", "positional", "balanced"] = "random"
    """random (drawn with the seed), positional (first images train the weights, as in
    the published code) or balanced (drawn with the seed, the same share of every
    class)"""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """share of the training images that is used at all; none uses num_examples"""


class NetworkConfig(Settings):
    """Size of the search network."""

    init_channels: Channels = 8
    """channels of the first cell; doubled at every reduction cell"""
    num_cells: Cells = 3
    """cells in a row; those at one and at two thirds reduce the resolution"""
    channel_divisor: Count | Annotated[tuple[Count, ...], Field(min_length=1)] = 4
    """K: one in K channels of an edge enters the operations; one number, or one per
    cell such as 16,8,4,4,4,4,2,1. Left out, it is that of the method: 4, or 1 where
    all channels enter"""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """layers in front of the cells: cifar keeps the resolution, imagenet divides it by
    8, auto chooses imagenet from 96 pixels on"""
    precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
    """arithmetic: float32, tf32 (its products with 10 bits on NVIDIA GPUs, the same
    elsewhere) or bfloat16; weights and architecture are float32 in any case"""


class OptionsConfig(Settings):
    """Settings of single methods; none is the method's own.

    An option that the chosen method does not have is an error.
    """

    channel_choice: Literal["first", "random"] | None = None
    """pc_darts: the first channels (own) or, in every pass, new random ones"""
    channel_scores: Literal["batch", "average"] | None = None
    """adarts, alpha_adarts: what ranks the channels when the search network is
    evaluated, attention of the batch (own, as in the published code) or the running
    average of training, with which images do not depend on each other"""
    bam_combination: Literal["product", "sum"] | None = None
    """att_darts: how the branches of BAM meet, product (own, as in the published code)
    or sum (text of the paper)"""
    group_initial: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    """G-DARTS-A: first factors, one per channel group, as many as there are groups; own
    is our choice, 0.7,0.9,1.1,1.3, the paper's numbers are lost"""
    group_training: Literal["weights", "architecture"] | None = None
    """G-DARTS-A: who trains the factors; own is our choice, weights"""
    group_activation: Literal["none", "softmax", "sigmoid"] | None = None
    """G-DARTS-A: function of the factors; own is our choice, none of them"""
    group_place: Literal["before", "after"] | None = None
    """G-DARTS-A: where the factors act, seen from the operations; own is our choice,
    before, and after for g_pc_darts_a"""
    conv_groups: Count | None = None
    """G-DARTS-A: groups of the convolutions inside the operations; own is our choice, 1
    for darts_with_attention, else one per channel group"""
    group_kernels: Literal["shared", "independent"] | None = None
    """g_pc_darts_a: kernels of the groups; own is our choice, shared"""
    shuffle: bool | None = None
    """g_pc_darts_a: interleave the groups as PC-DARTS does; own is our choice, true"""
    weight_sharing: bool | None = None
    """random: judge uniform genotypes with shared weights; own is false, one uniform
    genotype and no training"""


class WeightsConfig(Settings):
    """SGD of the network weights; the learning rate falls as a cosine per epoch."""

    learning_rate: Positive = 0.025
    """at the first epoch, per step"""
    min_learning_rate: NotNegative = 0.0
    """where the cosine ends, per step"""
    warmup_epochs: Epochs = 0
    """first epochs, in which the rate rises in equal steps instead"""
    momentum: Share = 0.9
    """share of the previous update that is kept"""
    weight_decay: NotNegative = 3e-4
    """L2 penalty, added to the gradient after clipping"""
    gradient_clip: Positive | None = 5.0
    """largest global norm of the gradient; none for no clipping"""


class ArchitectureConfig(Settings):
    """Adam of the architecture parameters."""

    learning_rate: Positive = 6e-4
    """constant, per step"""
    betas: tuple[Share, Share] = (0.5, 0.999)
    """decay of the two moments, such as 0.5,0.999"""
    weight_decay: NotNegative = 1e-3
    """L2 penalty, added to the gradient before the moments"""
    gradient_clip: Positive | None = None
    """largest global norm of the gradient; none for no clipping"""
    initialization: Literal["biased", "plain", "zero", "uniform"] = "biased"
    """biased (towards sep_conv_5x5, alpha_adarts only), plain (small normal numbers),
    zero, or uniform (a genotype, random only). Left out, it is that of the method"""
    order: Literal["first", "second"] = "first"
    """first, or second: through one virtual step of the weights, about three times the
    work"""
    hessian: Literal["finite_difference", "exact"] | None = None
    """product of the second order: finite_difference (as published) or exact (forward
    over reverse); none is finite_difference"""


class CompatConfig(Settings):
    """Oddities of the published code; the defaults are the intended behaviour."""

    lr_index: Literal["epoch", "next_epoch"] = "epoch"
    """next_epoch shifts the cosine by one, as the published search ran with newer
    PyTorch: the first rate is skipped and the last epoch has the minimum"""
    stale_step: bool = False
    """repeat the last weight update of every epoch, true or false: the published
    alpha-ADARTS steps once more, on old gradients, before every next epoch"""
    architecture_batches: Literal["fresh", "one_pass"] = "fresh"
    """fresh (drawn anew in every step) or one_pass (the architecture split in order,
    once per epoch), as in the published code of Att-DARTS"""
    att_darts: bool = False
    """gradients of the published Att-DARTS, true or false: the norm that clips the
    weights counts the architecture; in the second order the virtual step moves it too,
    and has no momentum"""


class SearchConfig(Settings):
    """One architecture search. The defaults are the recipe ``configs/digits.toml``."""

    method: MethodName = "alpha_adarts"
    """search method"""
    seed: Seed = 2
    """of everything random in the run"""
    num_searches: Annotated[int, Field(ge=1, le=64)] = 1
    """side by side in one program, 1 to 64; the seeds are seed, seed + 1 and so on"""
    deterministic: bool = False
    """the same numbers in every run of a seed on a GPU too, true or false; slower
    there, no difference on a CPU"""
    epochs: Count = 12
    """passes over the weight split"""
    warmup_epochs: Epochs = 4
    """first epochs, in which only the weights are trained"""
    batch_size: Count = 32
    """images per step, for the weights and again for the architecture"""
    on_nan: OnNan = "stop"
    """when a loss or gradient is not finite: stop, or rollback to the beginning of the
    epoch, with other random numbers, at most three times in a run"""
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    weights: WeightsConfig = WeightsConfig()
    architecture: ArchitectureConfig = ArchitectureConfig()
    options: OptionsConfig = OptionsConfig()
    compat: CompatConfig = CompatConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Give what is left out the value of the method."""
        name = values.get("method", "alpha_adarts") if isinstance(values, dict) else ""
        method = METHODS.get(name) if isinstance(name, str) else None
        if method is None:
            return values
        filled = dict(values)
        for group, own in {
            "network": {"channel_divisor": method.channel_divisor},
            "architecture": {"initialization": method.initializations[0]},
        }.items():
            given = values.get(group, {})
            if isinstance(given, BaseModel):
                given = given.model_dump(exclude_unset=True)
            if isinstance(given, Mapping):
                filled[group] = own | dict(given)
        return filled

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_warmup(self.epochs, self.warmup_epochs)
        check_rates(
            self.epochs,
            warmup_epochs=self.weights.warmup_epochs,
            lowest=self.weights.min_learning_rate,
            highest=self.weights.learning_rate,
        )
        check_source(self.data.source, self.data.name, self.data.data_dir)
        check_share(self.data.fraction, self.data.num_examples)
        check_method(
            self.method,
            initialization=self.architecture.initialization,
            channel_divisor=self.network.channel_divisor,
            options=self.options.model_dump(exclude_none=True),
        )
        check_searches(
            self.seed,
            self.num_searches,
            name=self.method,
            weight_sharing=bool(self.options.weight_sharing),
        )
        check_order(
            self.method,
            self.architecture.order,
            hessian=self.architecture.hessian,
            att_darts=self.compat.att_darts,
            stale_step=self.compat.stale_step,
        )
        check_channels(
            self.network.init_channels,
            self.network.num_cells,
            self.network.channel_divisor,
        )
        return self
