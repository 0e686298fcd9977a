"""Genotypes printed in papers or released with them, each with where it comes from.

Data and look-up only. Parameter counts are those of the original code: 36 channels
and 20 cells for CIFAR, 48 channels and 14 cells for ImageNet with 1000 classes,
without the auxiliary head. ``adarts_jax.space.cost`` computes the same numbers.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from adarts_jax.errors import UserError, did_you_mean
from adarts_jax.space.genotype import Entry, Genotype

_DARTS = 'Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019'
_PC_DARTS = (
    'Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient '
    'Architecture Search", ICLR 2020'
)
_ADARTS = (
    'Xue, Qin, "Partial Connection Based on Channel Attention for Differentiable '
    'Neural Architecture Search", IEEE TII 19(5), 2023'
)
_ALPHA_ADARTS = "alpha-ADARTS, IEEE document 10933613; Cxllxc/alpha-ADARTS"
_ATT_DARTS = (
    'Nakai, Matsubara, Uehara, "Att-DARTS: Differentiable Neural Architecture Search '
    'for Attention", IJCNN 2020'
)
_NASNET = (
    'Zoph et al., "Learning Transferable Architectures for Scalable Image '
    'Recognition", CVPR 2018'
)
_AMOEBANET = (
    'Real et al., "Regularized Evolution for Image Classifier Architecture Search", '
    "AAAI 2019"
)


@dataclass(frozen=True)
class PublishedGenotype:
    """A released genotype and what is known about it.

    Attributes:
      genotype: the cells.
      citation: the work to cite, and which release where there are several.
      cifar10_parameters: parameters of the CIFAR network with 10 classes; None where
        the originals give no number.
      cifar100_parameters: the same with 100 classes.
      imagenet_parameters: parameters of the ImageNet network with 1000 classes.
    """

    genotype: Genotype
    citation: str
    cifar10_parameters: int | None = None
    cifar100_parameters: int | None = None
    imagenet_parameters: int | None = None


def _genotype(
    normal: str,
    reduce: str,
    normal_concat: tuple[int, ...] = (2, 3, 4, 5),
    reduce_concat: tuple[int, ...] = (2, 3, 4, 5),
) -> Genotype:
    return Genotype(_cell(normal), normal_concat, _cell(reduce), reduce_concat)


def _cell(text: str) -> tuple[Entry, ...]:
    """Read ``operation source [attention], ...``, nodes separated by a slash."""
    entries = [entry.split() for entry in text.replace("/", ",").split(",")]
    return tuple(
        Entry(op, int(source), *attention) for op, source, *attention in entries
    )


RECORDS: Mapping[str, PublishedGenotype] = MappingProxyType(
    {
        "darts_v1": PublishedGenotype(
            _genotype(
                "sep_conv_3x3 1, sep_conv_3x3 0 / skip_connect 0, sep_conv_3x3 1 /"
                "skip_connect 0, sep_conv_3x3 1 / sep_conv_3x3 0, skip_connect 2",
                "max_pool_3x3 0, max_pool_3x3 1 / skip_connect 2, max_pool_3x3 0 /"
                "max_pool_3x3 0, skip_connect 2 / skip_connect 2, avg_pool_3x3 0",
            ),
            f"{_DARTS} (first release of the code; not the first-order search)",
            3_169_414,
            3_221_344,
        ),
        "darts_v2": PublishedGenotype(
            _genotype(
                "sep_conv_3x3 0, sep_conv_3x3 1 / sep_conv_3x3 0, sep_conv_3x3 1 /"
                "sep_conv_3x3 1, skip_connect 0 / skip_connect 0, dil_conv_3x3 2",
                "max_pool_3x3 0, max_pool_3x3 1 / skip_connect 2, max_pool_3x3 1 /"
                "max_pool_3x3 0, skip_connect 2 / skip_connect 2, max_pool_3x3 1",
            ),
            f"{_DARTS} (second release of the code, a rerun)",
            3_349_342,
            3_401_272,
            4_718_752,
        ),
        "pc_darts_cifar": PublishedGenotype(
            _genotype(
                "sep_conv_3x3 1, skip_connect 0 / sep_conv_3x3 0, dil_conv_3x3 1 /"
                "sep_conv_5x5 0, sep_conv_3x3 1 / avg_pool_3x3 0, dil_conv_3x3 1",
                "sep_conv_5x5 1, max_pool_3x3 0 / sep_conv_5x5 1, sep_conv_5x5 2 /"
                "sep_conv_3x3 0, sep_conv_3x3 3 / sep_conv_3x3 1, sep_conv_3x3 2",
            ),
            f"{_PC_DARTS} (searched on CIFAR-10)",
            3_634_678,
            3_686_608,
            5_270_560,
        ),
        "pc_darts_image": PublishedGenotype(
            _genotype(
                "skip_connect 1, sep_conv_3x3 0 / sep_conv_3x3 0, skip_connect 1 /"
                "sep_conv_3x3 1, sep_conv_3x3 3 / sep_conv_3x3 1, dil_conv_5x5 4",
                "sep_conv_3x3 0, skip_connect 1 / dil_conv_5x5 2, max_pool_3x3 1 /"
                "sep_conv_3x3 2, sep_conv_3x3 1 / sep_conv_5x5 0, sep_conv_3x3 3",
            ),
            f"{_PC_DARTS} (searched on ImageNet)",
            3_721_510,
            3_773_440,
            5_342_464,
        ),
        "adarts_v1": PublishedGenotype(
            _genotype(
                "sep_conv_3x3 1, sep_conv_3x3 0 / skip_connect 0, dil_conv_3x3 1 /"
                "skip_connect 0, sep_conv_3x3 1 / max_pool_3x3 0, dil_conv_3x3 1",
                "max_pool_3x3 0, dil_conv_5x5 1 / dil_conv_3x3 2, max_pool_3x3 0 /"
                "skip_connect 2, skip_connect 3 / dil_conv_3x3 2, avg_pool_3x3 0",
            ),
            f"{_ADARTS} (the default of the code)",
            2_897_902,
            2_949_832,
        ),
        "adarts_v2": PublishedGenotype(
            _genotype(
                "sep_conv_3x3 0, sep_conv_3x3 1 / sep_conv_3x3 0, dil_conv_5x5 2 /"
                "skip_connect 3, sep_conv_3x3 1 / dil_conv_5x5 3, skip_connect 4",
                "sep_conv_3x3 1, avg_pool_3x3 0 / max_pool_3x3 1, sep_conv_3x3 2 /"
                "max_pool_3x3 0, sep_conv_5x5 3 / max_pool_3x3 1, max_pool_3x3 0",
            ),
            f"{_ADARTS} (second genotype of the code)",
            3_394_486,
            3_446_416,
        ),
        "alpha_adarts": PublishedGenotype(
            _genotype(
                "sep_conv_5x5 0, sep_conv_3x3 1 / skip_connect 0, sep_conv_5x5 2 /"
                "max_pool_3x3 0, avg_pool_3x3 3 / dil_conv_5x5 4, sep_conv_5x5 1",
                "max_pool_3x3 1, max_pool_3x3 0 / sep_conv_5x5 0, max_pool_5x5 1 /"
                "max_pool_5x5 0, max_pool_3x3 3 / max_pool_3x3 0, sep_conv_5x5 3",
            ),
            f"{_ALPHA_ADARTS} (genotype1, of both published training logs)",
            3_285_838,
            3_337_768,
        ),
        "alpha_adarts_unused": PublishedGenotype(
            _genotype(
                "max_pool_3x3 0, sep_conv_3x3 1 / max_pool_3x3 1, dil_conv_3x3 2 /"
                "max_pool_3x3 0, sep_conv_5x5 3 / max_pool_3x3 0, sep_conv_5x5 1",
                "dil_conv_5x5 1, sep_conv_5x5 0 / dil_conv_5x5 2, sep_conv_5x5 0 /"
                "skip_connect 1, dil_conv_5x5 2 / dil_conv_3x3 0, dil_conv_3x3 2",
            ),
            f"{_ALPHA_ADARTS} (genotype, in the code but not used)",
            3_031_606,
            3_083_536,
        ),
        "alpha_adarts_2": PublishedGenotype(
            _genotype(
                "sep_conv_3x3 1, sep_conv_5x5 0 / dil_conv_5x5 1, dil_conv_5x5 0 /"
                "dil_conv_3x3 1, skip_connect 2 / sep_conv_5x5 2, dil_conv_5x5 3",
                "max_pool_5x5 1, max_pool_3x3 0 / dil_conv_3x3 1, sep_conv_5x5 0 /"
                "max_pool_3x3 0, dil_conv_3x3 1 / sep_conv_3x3 2, dil_conv_3x3 1",
            ),
            f"{_ALPHA_ADARTS} (genotype2, in the code but not used)",
            3_543_742,
            3_595_672,
        ),
        "att_darts": PublishedGenotype(
            _genotype(
                "sep_conv_3x3 0 DoubleAttention, sep_conv_3x3 1 CBAM /"
                "sep_conv_3x3 0 CBAM, skip_connect 2 CBAM /"
                "skip_connect 0 CBAM, sep_conv_3x3 1 CBAM /"
                "skip_connect 0 CBAM, skip_connect 2 CBAM",
                "max_pool_3x3 0 BAM, dil_conv_3x3 1 DoubleAttention /"
                "avg_pool_3x3 0 BAM, skip_connect 2 CBAM /"
                "skip_connect 2 CBAM, avg_pool_3x3 0 BAM /"
                "skip_connect 2 CBAM, avg_pool_3x3 0 BAM",
            ),
            _ATT_DARTS,
            3_231_343,
            3_283_273,
            4_641_666,
        ),
        "nasnet": PublishedGenotype(
            _genotype(
                "sep_conv_5x5 1, sep_conv_3x3 0 / sep_conv_5x5 0, sep_conv_3x3 0 /"
                "avg_pool_3x3 1, skip_connect 0 / avg_pool_3x3 0, avg_pool_3x3 0 /"
                "sep_conv_3x3 1, skip_connect 1",
                "sep_conv_5x5 1, sep_conv_7x7 0 / max_pool_3x3 1, sep_conv_7x7 0 /"
                "avg_pool_3x3 1, sep_conv_5x5 0 / skip_connect 3, avg_pool_3x3 2 /"
                "sep_conv_3x3 2, max_pool_3x3 1",
                normal_concat=(2, 3, 4, 5, 6),
                reduce_concat=(4, 5, 6),
            ),
            f"{_NASNET} (NASNet-A, as written down by DARTS)",
        ),
        "amoebanet": PublishedGenotype(
            _genotype(
                "avg_pool_3x3 0, max_pool_3x3 1 / sep_conv_3x3 0, sep_conv_5x5 2 /"
                "sep_conv_3x3 0, avg_pool_3x3 3 / sep_conv_3x3 1, skip_connect 1 /"
                "skip_connect 0, avg_pool_3x3 1",
                "avg_pool_3x3 0, sep_conv_3x3 1 / max_pool_3x3 0, sep_conv_7x7 2 /"
                "sep_conv_7x7 0, avg_pool_3x3 1 / max_pool_3x3 0, max_pool_3x3 1 /"
                "conv_7x1_1x7 0, sep_conv_3x3 5",
                normal_concat=(4, 5, 6),
                reduce_concat=(3, 4, 6),
            ),
            f"{_AMOEBANET} (AmoebaNet-A, as written down by DARTS)",
        ),
    }
)
"""Everything known about each released genotype, by name."""

PUBLISHED: Mapping[str, Genotype] = MappingProxyType(
    {name: record.genotype for name, record in RECORDS.items()}
)
"""The released genotypes by name."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "darts": "darts_v2",
        "pc_darts": "pc_darts_cifar",
        "pcdarts": "pc_darts_cifar",
        "adarts": "adarts_v1",
        "genotype": "alpha_adarts_unused",
        "genotype1": "alpha_adarts",
        "genotype2": "alpha_adarts_2",
    }
)
"""Names of the original files, in lower case, that differ from ours."""


def published_record(name: str) -> PublishedGenotype:
    """Look a released genotype up by our name or by the original's.

    Case and ``-`` versus ``_`` do not matter.

    >>> published_record("DARTS_V2").cifar10_parameters
    3349342

    Raises:
      UserError: no such genotype; suggests the closest name.
    """
    key = _key(name)
    if key not in RECORDS:
        hint = did_you_mean(key[:64], [*RECORDS, *ALIASES])
        hint = hint or f"; known: {', '.join(RECORDS)}"
        raise UserError(f"no published genotype is called {name[:64]!r}{hint}")
    return RECORDS[key]


def published_genotype(name: str) -> Genotype:
    """Return ``published_record(name).genotype``."""
    return published_record(name).genotype


def find_genotype(name_or_file: str | Path) -> Genotype:
    """Return a released genotype by name, or read one from a file.

    A released name wins over a file of the same name; write ``./name`` for the file.

    Raises:
      UserError: neither a released name nor a readable genotype file.
    """
    text = str(name_or_file)
    if isinstance(name_or_file, str) and _key(text) in RECORDS:
        return published_genotype(text)
    is_path = os.sep in text or "." in text or os.path.exists(text)
    if isinstance(name_or_file, Path) or is_path:
        return Genotype.load(name_or_file)
    try:
        return published_genotype(text)
    except UserError as error:
        raise UserError(f"{error} (and there is no such file)") from None


def is_genotype_text(text: str) -> bool:
    """Return whether a text is a genotype itself, and no name or file of one."""
    return text.lstrip().startswith(("Genotype", "{"))


def _key(name: str) -> str:
    key = name.strip().lower().replace("-", "_")
    return ALIASES.get(key, key)
