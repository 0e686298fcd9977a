"""Typed options of the programs that use a finished model: schema and validation only.

The text under a field becomes its ``--help`` text.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from adarts_jax.config import Settings
from adarts_jax.config_types import Count, PathText, Positive, Side


class ModelOptions(Settings):
    """A model and how it computes."""

    model_config = ConfigDict(protected_namespaces=())

    model_dir: PathText
    """model directory: model.json and weights.safetensors"""
    batch_size: Count = 250
    """images per call of the network; changes speed and memory, not results"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """type of the arithmetic; weights and logits are float32 in any case"""


class EvaluationData(Settings):
    """Labelled images. Without a source, the data that the model was trained on."""

    source: Literal["digits", "tfds", "folder", "npz"] | None = None
    """digits (built in), tfds (prepared TensorFlow Datasets), folder
    (data_dir/SPLIT/class/*.png|jpg) or npz (arrays); none: as in the model's
    provenance"""
    name: PathText | None = None
    """which data set in data_dir, such as cifar10 for tfds"""
    data_dir: PathText | None = None
    """where the data is: a folder, or the file for npz"""
    image_size: Side | None = None
    """side in pixels to which images are stretched; none keeps their size, which must
    be that of the model"""
    channels: Literal[1, 3] | None = None
    """1 (luminance) or 3 (RGB); none: for pictures as many as the model takes"""
    center_crop: bool | None = None
    """take the middle of images that are larger than what the model takes; none: as
    the model was tested while it was trained, else false"""


class EvaluateOptions(ModelOptions):
    """Judge a model by a labelled split; one line of JSON on stdout.

    Shares are between 0 and 1, the loss is the mean cross entropy in nats; the
    throughput is that of the whole split, without compiling.
    """

    split: PathText = "test"
    """part of the data set"""
    data: EvaluationData = EvaluationData()
    out: PathText | None = None
    """folder for evaluation.json, confusion.json and the picture of it; none: no
    files"""
    overwrite: bool = False
    """replace the evaluation in that folder, if any"""


class PredictOptions(ModelOptions):
    """Apply a model to images; logits, predicted labels and file names as .npz."""

    images: PathText
    """folder of .png|jpg pictures in any layout, one picture, or an .npy of float32
    images, NHWC, already normalised"""
    out: PathText
    """file to write, ending in .npz: logits, labels (predicted classes), files,
    class_names"""
    resize: bool = False
    """stretch pictures of another size to the size the model takes"""
    overwrite: bool = False
    """replace the file, if it exists"""


class ConvertOptions(Settings):
    """What both directions have in common."""

    model_config = ConfigDict(protected_namespaces=())

    out: PathText
    """what to write"""
    overwrite: bool = False
    """replace it, if it exists"""
    verify: bool = False
    """afterwards run the project's own PyTorch network beside ours: largest difference
    of every output and agreement of predictions; exit 1 beyond 1e-4, relative"""
    num_images: Annotated[int, Field(ge=2, le=10_000)] = 8
    """how many images are shown to both: noise, or the first ones of a split of data"""
    split: PathText = "test"
    """part of the data set, if one is given"""
    data: EvaluationData = EvaluationData()


class FromTorchOptions(ConvertOptions):
    """Convert a .pt file of PyTorch to a model directory. Nothing in it is executed.

    Width, depth, classes, stem and auxiliary head are read off the shapes; the genotype
    too, if just one of the published ones fits.
    """

    file: PathText
    """state dict written by torch.save, zip or legacy format"""
    genotype: str | None = None
    """name of a published genotype, or a genotype file; none: the one that fits"""
    image_size: Side | None = None
    """side of the images in pixels; none: 32 with the CIFAR stem, 224 with the other"""
    mean: tuple[float, ...] | None = None
    """per channel, of pixels from 0 to 1, such as 0.49,0.48,0.45; none: that of
    CIFAR-10 or ImageNet, by the stem"""
    std: tuple[Positive, ...] | None = None
    """per channel, such as 0.25,0.24,0.26; none: as for mean"""
    class_names: tuple[str, ...] | None = None
    """one per output, such as cat,dog; none: numbers"""
    table: PathText | None = None
    """file for the whole table of entries that are missing, unexpected or of another
    shape, if there are any"""


class ToTorchOptions(ConvertOptions):
    """Write a model as a .pt file that the original PyTorch programs load (strict)."""

    model_dir: PathText
    """model directory: model.json and weights.safetensors"""
