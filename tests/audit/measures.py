"""The definitions of all measures, from their papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import xlogy

from layerscope.stats.cka import cka
from tests.audit.cases import Case
from tests.audit.table import KIND, Values, audited


def entropy(p: np.ndarray) -> float:
    return float(-xlogy(p, p).sum())


def singular(x: np.ndarray) -> np.ndarray:
    return np.linalg.svd(x, compute_uv=False)


def spectrum(x: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance, of n rows at most n − 1 of them."""
    return singular(x - x.mean(0))[: len(x) - 1] ** 2 / len(x)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@audited("rankme", "Garrido et al. 2023, eq. 1 and 2")
def rankme(case: Case, _: Mapping[str, Any]) -> Values:
    s = singular(case.test.x)
    p = s / s.sum() + 1e-7
    return {"rankme": float(np.exp(-(p * np.log(p)).sum()))}


@audited("effective-rank", "Roy and Vetterli 2007")
def effective_rank(case: Case, _: Mapping[str, Any]) -> Values:
    values = spectrum(case.test.x)
    p = values / values.sum()
    return {
        "effective-rank": np.exp(entropy(p)),
        "participation-ratio": 1 / float((p**2).sum()),
    }


@audited("stable-rank", "Rudelson and Vershynin 2007, section 1")
def stable_rank(case: Case, _: Mapping[str, Any]) -> Values:
    x = case.test.x / np.abs(case.test.x).max()
    return {"stable-rank": (np.linalg.norm(x) / np.linalg.norm(x, 2)) ** 2}


@audited("nesum", "He and Ozay 2022")
def nesum(case: Case, _: Mapping[str, Any]) -> Values:
    values = spectrum(case.test.x)
    return {"nesum": values.sum() / values[0]}


@audited("alpha-req(first=0,last=9)", "Agrawal et al. 2022; Stringer et al. 2019")
def alpha_req(case: Case, _: Mapping[str, Any]) -> Values:
    ranks = np.arange(1, 11)
    y, x = np.log(spectrum(case.test.x)[:10]), np.log(ranks)
    slope = np.polyfit(x, y, 1, w=np.sqrt(1 / ranks))[0]
    return {"alpha": -slope, "alpha-distance": abs(-slope - 1)}


@audited("matrix-entropy", "Skean et al. 2025, eq. 1")
def matrix_entropy(case: Case, _: Mapping[str, Any]) -> Values:
    x = case.test.x
    nats = entropy(singular(x) ** 2 / np.linalg.norm(x) ** 2)
    return {"matrix-entropy-nats": nats, "matrix-entropy": nats / np.log(min(x.shape))}


@audited("matrix-entropy(order=2)", "Skean et al. 2025, eq. 1")
def matrix_entropy_of_order_2(case: Case, _: Mapping[str, Any]) -> Values:
    x = case.test.x / np.abs(case.test.x).max()
    p = np.linalg.eigvalsh(x @ x.T) if len(x) < 500 else np.linalg.eigvalsh(x.T @ x)
    nats = -np.log(((p / p.sum()) ** 2).sum())
    return {"matrix-entropy-nats": nats, "matrix-entropy": nats / np.log(min(x.shape))}


def rate(z: np.ndarray, eps_sq: float) -> float:
    """Half the log-determinant, from eigenvalues."""
    n, d = z.shape
    return float(0.5 * np.log1p(d / (n * eps_sq) * singular(z) ** 2).sum())


def rates(z: np.ndarray, y: np.ndarray, eps_sq: float) -> Values:
    n, d = z.shape
    parts = [z[y == label] for label in np.unique(y)]
    whole, apart = rate(z, eps_sq), sum(len(z) / n * rate(z, eps_sq) for z in parts)
    r = min(n, d)
    bound = r / 2 * np.log1p(d / (r * eps_sq))
    return {
        "coding-rate": whole,
        "rate-per-dimension": whole / d,
        "conditional-coding-rate": apart,
        "coding-rate-reduction": whole - apart,
        "reduction-share": (whole - apart) / whole,
        "bound-share": (whole - apart) / bound,
    }


@audited("coding-rate", "Yu et al. 2020, section 2", KIND)
def coding_rate(case: Case, _: Mapping[str, Any]) -> Values:
    return rates(unit(case.test.x), case.test.y, 0.5)


@audited("coding-rate(normalisation='frobenius')", "Yu et al. 2020, section 2.2", KIND)
def coding_rate_frobenius(case: Case, _: Mapping[str, Any]) -> Values:
    z = case.test.x.copy()
    for label in np.unique(case.test.y):
        own = case.test.y == label
        z[own] *= np.sqrt(own.sum()) / np.linalg.norm(z[own])
    return rates(z, case.test.y, 0.5)


@audited("coding-rate(normalisation='none',eps_sq=2)", "Yu et al. 2020, section 2", KIND)
def coding_rate_as_it_is(case: Case, _: Mapping[str, Any]) -> Values:
    found = rates(case.test.x, case.test.y, 2.0)
    # Of rates that are 1e-17 the difference is rounding.
    differences = ("coding-rate-reduction", "reduction-share", "bound-share")
    return {name: it for name, it in found.items() if found["coding-rate"] > 1e-9 or
            name not in differences}  # fmt: skip


@audited("coding-rate(partition='pairs')", "Yu et al. 2020, section 2")
def coding_rate_of_pairs(case: Case, _: Mapping[str, Any]) -> Values:
    return rates(unit(case.test.x), case.test.images, 0.5)


@audited("lidar", "Thilak et al. 2024, section 3")
def lidar(case: Case, _: Mapping[str, Any]) -> Values:
    x, images = case.test.x, case.test.images
    means = np.stack([x[images == one].mean(0) for one in np.unique(images)])
    apart = x - means[np.unique(images, return_inverse=True)[1]]
    within = apart.T @ apart / (len(x) - len(means)) + 1e-4 * np.eye(x.shape[1])
    centred = means - means.mean(0)
    values, axes = np.linalg.eigh(within)
    white = centred @ (axes / np.sqrt(values)) @ axes.T
    found = np.zeros(x.shape[1])
    squares = singular(white) ** 2 / (len(means) - 1)
    found[: len(squares)] = squares
    p = (found + 1e-8) / (found + 1e-8).sum()
    return {"lidar": np.exp(entropy(p))}


@audited("alignment", "Wang and Isola 2020, eq. 3")
def alignment(case: Case, _: Mapping[str, Any]) -> Values:
    z, images = unit(case.test.x), case.test.images
    pairs = [z[images == one] for one in np.unique(images)]
    return {"alignment": np.mean([((a - b) ** 2).sum() for a, b in pairs])}


@audited("uniformity", "Wang and Isola 2020, eq. 4")
def uniformity(case: Case, _: Mapping[str, Any]) -> Values:
    z, images = unit(case.test.x), case.test.images
    kernel = np.exp(-2 * cdist(z, z, "sqeuclidean"))
    kernel[images[:, None] == images] = 0
    return {"uniformity": np.log(kernel.sum() / (images[:, None] != images).sum())}


def nearest(x: np.ndarray, k: int) -> np.ndarray:
    """(n, k) ascending distances to the nearest other rows."""
    distance = cdist(x, x)
    np.fill_diagonal(distance, np.inf)
    return np.sort(np.partition(distance, k, axis=1)[:, :k], axis=1)


@audited("twonn", "Facco et al. 2017")
def two_nn(case: Case, _: Mapping[str, Any]) -> Values:
    near = nearest(case.test.x, 2)
    n, logs = len(near), np.sort(np.log(near[:, 1] / near[:, 0]))
    kept = int(n * 0.9)
    y = -np.log(1 - np.arange(1, n + 1) / n, where=np.arange(n) < n - 1, out=np.zeros(n))
    line = (logs[:kept] @ y[:kept]) / (logs[:kept] @ logs[:kept])
    return {"twonn": (n - 1) / logs.sum(), "twonn-line": line}


@audited("mle-dimension", "Levina and Bickel 2004, eq. 8; MacKay and Ghahramani 2005")
def mle_dimension(case: Case, _: Mapping[str, Any]) -> Values:
    near = nearest(case.test.x, 20)
    inverse = np.log(near[:, -1:] / near[:, :-1]).mean(1)
    return {"mle-dimension": 1 / inverse.mean()}


@audited("class-separation", "Kornblith et al. 2021, section 4.1", KIND)
def class_separation(case: Case, _: Mapping[str, Any]) -> Values:
    z, y = unit(case.test.x), case.test.y
    distance = cdist(z, z, "sqeuclidean") / 2  # 1 − cos of unit rows
    table = np.array([
        [distance[np.ix_(y == a, y == b)].mean() for b in np.unique(y)] for a in np.unique(y)
    ])  # fmt: skip
    return {"class-separation": 1 - table.diagonal().mean() / table.mean()}


def by_class(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers and means of the classes, and the sum of squares within them."""
    places = np.unique(y, return_inverse=True)[1]
    means = np.stack([x[places == k].mean(0) for k in range(places.max() + 1)])
    apart = x - means[places]
    return np.bincount(places), means, apart.T @ apart


def shrunk(within: np.ndarray) -> np.ndarray:
    return 0.9 * within + 0.1 * np.trace(within) / len(within) * np.eye(len(within))


@audited("neural-collapse", "Papyan, Han and Donoho 2020", KIND)
def neural_collapse(case: Case, _: Mapping[str, Any]) -> Values:
    x = case.test.x / np.abs(case.test.x - case.test.x.mean(0)).max()
    x = x - x.mean(0)
    counts, means, within = by_class(x, case.test.y)
    centred, classes = means - means.mean(0), len(means)
    between = centred.T @ centred / classes
    lengths = np.linalg.norm(centred, axis=1)
    cosine = (centred @ centred.T / np.outer(lengths, lengths))[~np.eye(classes, dtype=bool)]
    weights = np.linalg.solve(shrunk(within / len(x)), means.T)  # x has mean 0
    w, m = (weights.T - weights.T.mean(0)), centred
    scores = x @ weights - (means.T * weights).sum(0) / 2 + np.log(counts / len(x))
    differs = scores.argmax(1) != cdist(x, means).argmin(1)
    return {
        "nc1": np.trace(within / len(x) @ np.linalg.pinv(between, rcond=1e-10)) / classes,
        "nc2-norms": lengths.std() / lengths.mean(),
        "nc2-angles": np.abs(cosine + 1 / (classes - 1)).mean(),
        "nc3": np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)) ** 2,
        "nc4": differs.mean(),
    }


@audited("fisher", "Fukunaga 1990, section 10.2", KIND)
def fisher(case: Case, _: Mapping[str, Any]) -> Values:
    x = case.test.x / np.abs(case.test.x - case.test.x.mean(0)).max()
    x = x - x.mean(0)
    counts, means, within = by_class(x, case.test.y)
    between = (means.T * counts) @ means
    return {
        "fisher-ratio": np.trace(between) / np.trace(within),
        "discriminant-ratio": np.trace(np.linalg.solve(shrunk(within), between)),
    }


def layers(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The rows, and another layer of the same images."""
    x = case.layer.rows[case.layer.places("test")]
    scale = np.abs(x).max()
    return x, (scale * np.tanh(x[:, :7] / scale)).astype(np.float32)


def our_cka(case: Case) -> tuple[Values, Mapping[str, Any]]:
    x, y = (torch.from_numpy(it) for it in layers(case))
    found = cka([lambda a, b: x[a:b], lambda a, b: y[a:b]], len(x))
    return {"biased": float(found.biased[0, 1]), "unbiased": float(found.unbiased[0, 1])}, {}


# Its products are of float32 numbers in float32.
@audited("cka", "Kornblith et al. 2019, eq. 4; Song et al. 2012, eq. 5", ours=our_cka, within=1e-5)
def linear_cka(case: Case, _: Mapping[str, Any]) -> Values:
    centred = (it.astype(np.float64) - it.astype(np.float64).mean(0) for it in layers(case))
    k, o = (it @ it.T / np.linalg.norm(it) ** 2 for it in centred)
    return {"biased": _cosine(lambda a, b: (a * b).sum(), k, o), "unbiased": _cosine(hsic, k, o)}


def _cosine(product: Callable[..., float], k: np.ndarray, o: np.ndarray) -> float:
    return float(product(k, o) / np.sqrt(product(k, k) * product(o, o)))


def hsic(k: np.ndarray, o: np.ndarray) -> float:
    """Song et al., eq. 5 without its factor, from whole matrices with zeros on the diagonal."""
    n = len(k)
    k, o = k - np.diag(k.diagonal()), o - np.diag(o.diagonal())
    sums = k.sum() * o.sum() / ((n - 1) * (n - 2))
    return float((k * o).sum() + sums - 2 / (n - 2) * (k.sum(0) @ o.sum(0)))
