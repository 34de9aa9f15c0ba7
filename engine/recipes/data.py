"""Settings of the data: the images that are trained on, their splits, and their augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from engine.recipes.settings import PathText, left_out_unless_given, names, settings

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
LabelledFraction = Annotated[float, Field(gt=0.0, le=1.0)]
Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]
Side = Annotated[int, Field(ge=4, le=1024)]


LabelKind = Literal["classes", "identities", "label_maps"]
"""Classes of the training, identities that the training does not know, or a class for each pixel."""

_LABEL_KINDS: dict[str, LabelKind] = {
    "market1501": "identities",
    "identities": "identities",
    "label_maps": "label_maps",
    "cityscapes": "label_maps",
}


def _one_number_for_squares(size: int | tuple[int, int]) -> int | tuple[int, int]:
    # So that recipes of the same images are equal, and have the same identity.
    return size if isinstance(size, int) or size[0] != size[1] else size[0]


CropSide = Annotated[int, Field(ge=8, le=8192)]
Factor = Annotated[float, Field(gt=0.0, le=8.0)]
OnlyTrue = Annotated[bool | None, AfterValidator(lambda given: given or None)]

ClassName = Annotated[str, Field(min_length=1)]


ImageSize = Annotated[Side | tuple[Side, Side], AfterValidator(_one_number_for_squares)]


@settings
class Augmentation:
    """Random changes of the training images, drawn anew for each (seed, epoch, step)."""

    crop_padding: Annotated[int, Field(ge=0, le=64)] = 0
    """Pixels added on every side before a random crop of the original size; 0 means no crop."""

    padding_mode: Literal["reflect", "zeros"] = "reflect"
    """What the added pixels hold: the mirrored image (InfoPro, WRN on CIFAR) or zeros."""

    flip: bool = False
    """Mirror each image left to right with probability one half."""

    color_jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Largest relative change s of brightness, contrast and saturation, each factor uniform in [1 - s, 1 + s]."""

    random_erasing: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Probability with which a rectangle of an image (2 to 40 % of it, aspect ratio 0.3 to 3.3) becomes the mean colour
    (Zhong et al. 2020); none unless given. Label maps stay as they are."""

    random_resized_crop: bool = False
    """Crop a random area (8 to 100 %) and aspect ratio (3/4 to 4/3), and resize it to the image size."""

    crop: tuple[CropSide, CropSide] | None = None
    """Label maps: height and width of a random crop of picture and labels together. What lies outside of the picture is
    filled with the mean colour, and has no label."""

    scale: tuple[Factor, Factor] | None = None
    """Label maps: picture and labels are scaled before the crop by a factor that is uniform between these two."""

    largest_class_share: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Label maps: a crop is drawn again, up to ten times, where one class covers this share of its labelled pixels or
    more, or is the only one."""

    photometric_distortion: OnlyTrue = None
    """Label maps: change brightness, contrast, saturation and hue, each with probability one half, as mmsegmentation
    does."""

    _serialize = left_out_unless_given(
        "crop", "scale", "largest_class_share", "photometric_distortion", "random_erasing"
    )

    @property
    def of_label_maps(self) -> tuple[str, ...]:
        """The fields that are given and have a meaning for label maps only."""
        fields = ("crop", "scale", "largest_class_share", "photometric_distortion")
        return tuple(field for field in fields if getattr(self, field) is not None)

    @model_validator(mode="after")
    def _crops_of_label_maps(self) -> Augmentation:
        if self.crop is None and (self.scale is not None or self.largest_class_share is not None):
            given = "scale" if self.scale is not None else "largest_class_share"
            raise ValueError(
                f"{given} is about random crops: give their height and width as crop, or leave {given} out"
            )
        if self.scale is not None and self.scale[0] > self.scale[1]:
            smallest, largest = sorted(self.scale)
            raise ValueError(
                f"scale is the smallest and the largest factor, found {self.scale}; set scale={smallest},{largest}"
            )
        others = "crop_padding" if self.crop_padding else "random_resized_crop" if self.random_resized_crop else None
        if self.crop is not None and others:
            raise ValueError(f"crop and {others} are two ways to crop: leave one of them out")
        if self.photometric_distortion and self.color_jitter:
            raise ValueError(
                "photometric_distortion and color_jitter are two ways to change colours: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> Augmentation:
        if self.crop_padding and self.random_resized_crop:
            raise ValueError(
                "crop_padding and random_resized_crop are two ways to crop; set crop_padding=0 or "
                "random_resized_crop=false"
            )
        return self


@settings
class Data:
    """A data set and how batches are drawn from it."""

    name: Literal[
        "digits",
        "cifar10",
        "cifar100",
        "svhn",
        "stl10",
        "folder",
        "parquet",
        "label_maps",
        "cityscapes",
        "market1501",
        "identities",
        "synthetic",
    ]
    """The data set, or the layout of a user's own: `folder` (train/CLASS/x.png), `parquet` (Hugging Face shards),
    `label_maps` (images/train/x.jpg with labels/train/x.png), `market1501` (also DukeMTMC-reID's), `identities` (a
    table of pictures, identities and cameras)."""

    root: PathText | None = None
    """Folder or URI (s3://, gs://, abfs://, hdfs://, file://) that holds the files; needed for everything but `digits`
    and `synthetic`."""

    download: bool = False
    """Download CIFAR-10, CIFAR-100, SVHN or STL-10 into `root` if they are missing. Never done unless asked."""

    batch_size: Annotated[int, Field(ge=1)] = 128
    """Images in a training batch B; the last batch of an epoch holds what is left."""

    classes_per_batch: Annotated[int, Field(ge=2)] | None = None
    """Draw for each batch this many classes P and `batch_size` / P images of each, for losses that compare the images
    of a batch; unless given, an epoch sees each image once. Takes labelled images only."""

    evaluation_batch_size: Annotated[int, Field(ge=1)] = 512
    """Images in a batch of evaluation; has no influence on the weights."""

    train_limit: Annotated[int, Field(ge=1)] | None = None
    """Train on this many images only, a stratified subset drawn with `subset_seed`."""

    test_limit: Annotated[int, Field(ge=1)] | None = None
    """Test on this many images only, a stratified subset drawn with `subset_seed`."""

    validation_fraction: Fraction = 0.0
    """Share of the training images held out, stratified and drawn with `subset_seed`, for choosing settings."""

    subset_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the subsets; kept apart from `seed`, so that runs with several seeds share their images."""

    labelled_fraction: LabelledFraction | None = None
    """Share of each class's training images that keep their label, drawn with `subset_seed`; all unless given."""

    labelled_indices: PathText | None = None
    """Text file with the training images that keep their label, one position in the whole training set a line."""

    unlabelled: Literal["use", "drop"] = "use"
    """Whether training images without a label are trained on without it, by what needs none, or left out."""

    image_size: ImageSize | None = None
    """Height and width in pixels of the images, as in ``[256, 128]``, or the side of squares; required for `folder` and
    `parquet` when sizes vary. Pictures are resized until they cover it, and their middle is cut out."""

    stretch: bool = False
    """Resize pictures to the height and width of `image_size` whatever their aspect ratio, and cut nothing off."""

    first_size: tuple[Side, Side] | None = None
    """With `stretch`: height and width that pictures are resized to before they are resized to `image_size`, as in the
    released code of Deep Mutual Learning (`[160, 64]`, then 224). None in between unless given."""

    resize_size: Annotated[int, Field(ge=4, le=2048)] | None = None
    """Shorter side before the centre crop of evaluation, for square images. Unless given, image_size * 8 / 7 (224 ->
    256) for a set that is too large to be decoded ahead, and image_size for others. Where training images are held out,
    a set that is kept decoded holds them once more, for their evaluation."""

    image_column: str | None = None
    """Parquet column with the pictures; the only one that can hold them, then `image` or `img`, unless given. Of
    `identities` in CSV, the column with the names of their files; `image` unless given."""

    label_column: str | None = None
    """Parquet column with the class, as whole numbers, text, truth values or categories; `label`, then `fine_label`,
    then the only column that can hold classes, unless given. Of `identities`, the column with the identity."""

    class_names: Annotated[tuple[ClassName, ...] | None, BeforeValidator(names)] = None
    """Names of the values 0, 1, 2, ... of `label_maps`, where no table of classes lies beside the pictures."""

    num_classes: Annotated[int, Field(ge=2)] | None = None
    """Classes C; known for each named data set, required for `synthetic`, counted for others."""

    synthetic_images: Annotated[int, Field(ge=1)] = 1024
    """Training images of `synthetic`; a quarter as many are made for the test."""

    mean: Channels | None = None
    """Mean per channel of [0, 1] values, for normalisation; the published one or the training set's unless given."""

    std: Channels | None = None
    """Standard deviation per channel of [0, 1] values; the published one or the training set's unless given."""

    augmentation: Augmentation = Augmentation()
    """Random changes of the training images."""

    _serialize = left_out_unless_given("class_names", "first_size")

    @property
    def label_kind(self) -> LabelKind:
        """What its test images are labelled with."""
        return _LABEL_KINDS.get(self.name, "classes")

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """Height and width of the images; None where the pictures keep their size."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @model_validator(mode="after")
    def _fields_agree(self) -> Data:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be positive in every channel, found {self.std}")
        if self.classes_per_batch is not None and self.batch_size % self.classes_per_batch:
            multiple = -(-self.batch_size // self.classes_per_batch) * self.classes_per_batch
            raise ValueError(
                f"classes_per_batch={self.classes_per_batch} does not divide batch_size={self.batch_size}: each class "
                f"has as many images in a batch as any other; set batch_size={multiple}"
            )
        if self.classes_per_batch is not None and self.label_kind == "label_maps":
            raise ValueError(
                f"classes_per_batch draws images by their class, but those of {self.name} have label maps: set "
                "classes_per_batch=null"
            )
        labelled = "labelled_fraction" if self.labelled_fraction is not None else "labelled_indices"
        if self.classes_per_batch is not None and self.unlabelled == "use" and getattr(self, labelled) is not None:
            raise ValueError(
                f"classes_per_batch={self.classes_per_batch} draws images by their class, so that those without label "
                f"({labelled}={getattr(self, labelled)}) are never seen, which unlabelled=use asks for: set "
                "unlabelled=drop, or leave classes_per_batch out"
            )
        if self.name == "synthetic" and self.num_classes is None:
            raise ValueError("num_classes is required for synthetic images, as in data.num_classes=10")
        if self.labelled_fraction is not None and self.labelled_indices is not None:
            raise ValueError(
                f"labelled_fraction={self.labelled_fraction} and labelled_indices={self.labelled_indices} are two ways "
                "to say which images keep their label; set one of them to null"
            )
        if self.unlabelled == "drop" and self.labelled_fraction is None and self.labelled_indices is None:
            raise ValueError(
                "unlabelled=drop leaves nothing out, because every image has its label; give labelled_fraction or "
                "labelled_indices, or set unlabelled=use"
            )
        return self
