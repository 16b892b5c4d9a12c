"""Every measure as a textbook would write it: plain loops, no code of the package. Slow, and meant to be read."""

from itertools import permutations, product
from math import inf, log2

# --- Ranking quality: a list of items, best first, against {relevant item: value > 0} -----------------------


def hits(listed, truth, k):
    return sum(1 for item in listed[: k or None] if item in truth)


def precision(listed, truth, k, depth, ips=None):
    return recall(listed, truth, k, depth, ips) * len(truth) / (k or depth)


def recall(listed, truth, k, depth, ips=None):
    weight = {item: 1.0 if ips is None else 1 / ips[item] for item in truth}
    return sum(weight[item] for item in listed[: k or None] if item in truth) / sum(weight.values())


def capped_recall(listed, truth, k, depth):
    return hits(listed, truth, k) / min(k or inf, len(truth))


def hit_rate(listed, truth, k, depth):
    return float(hits(listed, truth, k) > 0)


def ndcg(listed, truth, k, depth, gain="binary", ips=None):
    shape = {"binary": lambda v: 1.0, "linear": lambda v: v, "exp": lambda v: 2**v - 1}[gain]
    worth = {item: shape(value) * (1 if ips is None else 1 / ips[item]) for item, value in truth.items()}
    k = k or max(depth, len(truth))
    reached = sum(worth[item] / log2(rank + 1) for rank, item in enumerate(listed[:k], 1) if item in truth)
    best = sorted(worth.values(), reverse=True)[:k]
    return reached / sum(value / log2(rank + 1) for rank, value in enumerate(best, 1))


def average_precision(listed, truth, k, depth, over="capped"):
    k = k or max(depth, len(truth))
    found = sum(hits(listed, truth, rank) / rank for rank, item in enumerate(listed[:k], 1) if item in truth)
    return found / (min(k, len(truth)) if over == "capped" else len(truth))


def reciprocal_rank(listed, truth, k, depth):
    return next((1 / rank for rank, item in enumerate(listed, 1) if item in truth and rank <= (k or rank)), 0.0)


def r_precision(listed, truth, k, depth):
    return hits(listed, truth, len(truth)) / len(truth)


def rbp(listed, truth, k, depth, p=0.8):
    return sum(
        (1 - p) * p ** (rank - 1) for rank, item in enumerate(listed, 1) if item in truth and rank <= (k or rank)
    )


def auc(scores, truth):
    """``scores``: {candidate: score}; relevant items that are no candidates lose every comparison."""
    others = [score for item, score in scores.items() if item not in truth]
    won = sum((scores[i] > other) + (scores[i] == other) / 2 for i in truth if i in scores for other in others)
    return won / (len(truth) * len(others))


def orders(listed, scores):
    """Every order of a list in which only items of equal score change places."""
    groups = []
    for item in listed:
        if groups and scores[groups[-1][0]] == scores[item]:
            groups[-1].append(item)
        else:
            groups.append([item])
    for choice in product(*(permutations(group) for group in groups)):
        yield [item for group in choice for item in group]


def over_ties(measure, listed, scores, truth, k, depth, ties, **options):
    """A measure under a tie policy, by brute force over all orders of the tied."""
    every = list(orders(listed, scores))
    if ties == "average":
        return sum(measure(order, truth, k, depth, **options) for order in every) / len(every)
    pick = max if ties == "optimistic" else min
    return pick(measure(order, truth, k, depth, **options) for order in every)


def propensities(counts, power):
    """Chance that an item is observed, from how often it was chosen."""
    most = max(counts.values())
    return {item: ((n + 1) / (most + 1)) ** power for item, n in counts.items()}
