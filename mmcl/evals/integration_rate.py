"""How far apart two modalities lie as distributions, whatever belongs together.

Of means m and covariances S of both modalities' embeddings, outliers removed,

    frechet(a, b) = || m_a - m_b ||^2 + tr S_a + tr S_b - 2 tr (S_a^1/2 S_b S_a^1/2)^1/2
    rate(a, b)    = log10 frechet(a, b)

After the modality integration rate of P129 (MIR, arXiv 2410.07167): smaller is better integrated.
What differs here:

    The paper takes the tokens of a language model and sums the distance over its layers before the
    logarithm; here are two towers that share no layer but the last, and the pooled embeddings.
    It scales both by 1 / (mean length of the text's tokens); embeddings are of unit length, so
    that this factor is 1.
    It knows an outlier by its length, more than 3 sigma from the median length; unit vectors have
    but one length, so that here it is one more than 3 sigma further than the mean from the centre
    of its modality. It is left out, where the paper puts a median in its place.

Paper: P129 (MIR), on the embeddings of two towers.

Decided here: over records, as the gap of `geometry`, so that a model that embeds both sides of
every pair alike has distance 0. Covariances are divided by n - 1 and everything is float64, with
exact square roots. The distance is biased upwards where records are few against D: compare numbers
of one split only.
"""

import itertools

import numpy as np

from data_pipelines.errors import InputError
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import Figures
from mmcl.evals.pairs import check_unit

SIGMAS = 3
LEAST = 1e-12  # what is taken for the logarithm of nothing


def evaluate(embedded: Embedded, model: object) -> Figures:
    """`integration/<a>_<b>/rate` and `/frechet` of every two modalities, and of how many records
    of both after removal (`count_<modality>`).

    Raises:
      InputError: there are fewer than two records or modalities.
    """
    if len(embedded.z) < 2 or len(embedded.ids) < 2:
        raise InputError(
            f"'{embedded.split}' has {len(embedded.ids)} records of {list(embedded.z)}: an "
            "integration rate needs two modalities and two records"
        )
    kept = {
        modality: without_outliers(check_unit(rows, modality).astype(np.float64))
        for modality, rows in embedded.z.items()
    }
    figures: Figures = {}
    for a, b in itertools.combinations(kept, 2):
        distance = frechet(kept[a], kept[b])
        figures[f"integration/{a}_{b}/rate"] = float(np.log10(max(distance, LEAST)))
        figures[f"integration/{a}_{b}/frechet"] = distance
        for modality in (a, b):
            count = len(kept[modality])
            figures[f"integration/{a}_{b}/count_{modality}"] = float(count)
    return figures


def without_outliers(z_NxD: np.ndarray) -> np.ndarray:
    """The rows that are not much further from their mean than others."""
    from_N = np.linalg.norm(z_NxD - z_NxD.mean(axis=0), axis=1)
    return z_NxD[from_N <= from_N.mean() + SIGMAS * from_N.std()]


def frechet(z_NxD: np.ndarray, z_MxD: np.ndarray) -> float:
    """Squared Fréchet distance of the normal distributions with the rows' moments.

    The trace of the root is the sum of the singular values of S_a^1/2 S_b^1/2, which rounds to
    1e-16 where roots of eigenvalues round to 1e-8.
    """
    apart = np.square(z_NxD.mean(axis=0) - z_MxD.mean(axis=0)).sum()
    (own_a, root_a), (own_b, root_b) = (_root(rows) for rows in (z_NxD, z_MxD))
    shared = np.linalg.svd(root_a @ root_b, compute_uv=False).sum()
    return float(max(apart + own_a + own_b - 2 * shared, 0.0))


def _root(z_NxD: np.ndarray) -> tuple[float, np.ndarray]:
    """The trace of the rows' covariance, and its symmetric square root (D, D)."""
    centred_NxD = z_NxD - z_NxD.mean(axis=0)
    value_D, vector_DxD = np.linalg.eigh(centred_NxD.T @ centred_NxD / max(len(z_NxD) - 1, 1))
    rounding = len(value_D) * np.finfo(np.float64).eps * value_D[-1]
    value_D = np.where(value_D > rounding, value_D, 0.0)
    return float(value_D.sum()), (vector_DxD * np.sqrt(value_D)) @ vector_DxD.T
