"""Measures of agreement written as their papers define them: loops over items, pairs and depths. Slow on purpose.

A list is a list of groups (lists of ids), best first. ``None`` stands for undefined.
"""

import itertools
import math


def levels(groups):
    return {item: place for place, group in enumerate(groups) for item in group}


def aligned(a, b, missing):
    """Return [(level in a, level in b)] of the items to compare."""
    x, y = levels(a), levels(b)
    if missing == "intersection":
        return [(x[item], y[item]) for item in x if item in y]
    return [(x.get(item, len(a)), y.get(item, len(b))) for item in list(x) + [item for item in y if item not in x]]


def no_order(both):
    return len({x for x, _ in both}) < 2 or len({y for _, y in both}) < 2


def sign(difference):
    return (difference > 0) - (difference < 0)


def kendall(a, b, variant, missing="intersection"):
    both = aligned(a, b, missing)
    if no_order(both):
        return None
    n = len(both)
    total = only_a = only_b = pairs = 0
    for (x, y), (u, v) in itertools.combinations(both, 2):
        total += sign(x - u) * sign(y - v)
        only_a += x != u
        only_b += y != v
        pairs += 1
    groups = min(len({x for x, _ in both}), len({y for _, y in both}))
    over = {"a": pairs, "b": math.sqrt(only_a * only_b), "c": n * n * (groups - 1) / groups / 2}
    return total / over[variant]


def weighted_kendall(a, b, additive=True, missing="intersection"):
    both = aligned(a, b, missing)
    if no_order(both):
        return None
    values = []
    for order in (sorted(both), sorted(both, key=lambda pair: (pair[1], pair[0]))):
        inner = left = right = 0.0
        for r, s in itertools.combinations(range(len(order)), 2):
            weight = 1 / (r + 1) + 1 / (s + 1) if additive else 1 / ((r + 1) * (s + 1))
            dx, dy = sign(order[r][0] - order[s][0]), sign(order[r][1] - order[s][1])
            inner += weight * dx * dy
            left += weight * dx * dx
            right += weight * dy * dy
        values.append(inner / math.sqrt(left * right))
    return sum(values) / 2


def orders(groups):
    """Yield every list without ties that a list with ties allows."""
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [item for part in parts for item in part]


def ap_untied(reference, judged):
    """tau_AP of two orders of the same items."""
    place = {item: i for i, item in enumerate(reference)}
    right = [sum(place[above] < place[item] for above in judged[:i]) / i for i, item in enumerate(judged) if i]
    return 2 / (len(judged) - 1) * sum(right) - 1


def common_groups(a, b):
    """Return both lists without the items that only one has."""
    shared = set(levels(a)) & set(levels(b))
    return [[kept for group in groups if (kept := [i for i in group if i in shared])] for groups in (a, b)]


def ap_a(a, b):
    """Mean over all ways to break the ties of both lists."""
    if no_order(aligned(a, b, "intersection")):
        return None
    a, b = common_groups(a, b)
    values = [ap_untied(x, y) for x in orders(a) for y in orders(b)]
    return sum(values) / len(values)


def ap_a_symmetric(a, b):
    there, back = ap_a(a, b), ap_a(b, a)
    return None if there is None else (there + back) / 2


def ap_b(a, b):
    both = aligned(a, b, "intersection")
    if no_order(both):
        return None

    def one_way(pairs):  # (reference, judged)
        asked = [
            [r < x for r, j in pairs if j < y and r != x] + [False for r, j in pairs if j < y and r == x]
            for x, y in pairs
        ]
        shares = [sum(answers) / len(answers) for answers in asked if answers]
        return 2 * sum(shares) / len(shares) - 1

    return (one_way(both) + one_way([(y, x) for x, y in both])) / 2


def mean_ranks(values):
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def rho(a, b, missing="intersection"):
    both = aligned(a, b, missing)
    if no_order(both):
        return None
    x, y = mean_ranks([pair[0] for pair in both]), mean_ranks([pair[1] for pair in both])
    middle = (len(both) + 1) / 2
    inner = sum((u - middle) * (v - middle) for u, v in zip(x, y, strict=True))
    return inner / math.sqrt(sum((u - middle) ** 2 for u in x) * sum((v - middle) ** 2 for v in y))


def footrule(a, b, missing="intersection"):
    both = aligned(a, b, missing)
    if no_order(both):
        return None
    x, y = mean_ranks([pair[0] for pair in both]), mean_ranks([pair[1] for pair in both])
    return 1 - sum(abs(u - v) for u, v in zip(x, y, strict=True)) / (len(both) ** 2 // 2)


def kendall_topk(a, b, p):
    """Fagin, Kumar and Sivakumar's penalties, case by case."""
    x, y = levels(a), levels(b)
    if not x and not y:
        return None

    def order(level, i, j):
        """-1: i first, 1: j first, 0: tied, None: neither is there."""
        if i not in level and j not in level:
            return None
        if i not in level or j not in level:
            return -1 if i in level else 1
        return sign(level[i] - level[j])

    total = 0.0
    for i, j in itertools.combinations(sorted(set(x) | set(y)), 2):
        first, second = order(x, i, j), order(y, i, j)
        if {first, second} == {-1, 1}:
            total += 1
        elif (first in (0, None)) != (second in (0, None)):
            total += p
    return total


def footrule_topk(a, b, location=None):
    x, y = levels(a), levels(b)
    if not x and not y:
        return None
    location = location or max(len(x), len(y)) + 1
    where = [dict(zip(level, mean_ranks(list(level.values())), strict=True)) for level in (x, y)]
    return sum(abs(where[0].get(i, location) - where[1].get(i, location)) for i in set(x) | set(y))


def cut(groups, k):
    kept, size = [], 0
    for group in groups:
        if k is not None and size >= k:
            break
        kept.append(group)
        size += len(group)
    return kept


def overlap(a, b, k=None):
    x, y = set(levels(cut(a, k))), set(levels(cut(b, k)))
    return 2 * len(x & y) / (len(x) + len(y)) if x or y else None


def jaccard(a, b, k=None):
    x, y = set(levels(cut(a, k))), set(levels(cut(b, k)))
    return len(x & y) / len(x | y) if x or y else None


DEEP = 3000  # p ** DEEP must be nothing


def shares(groups, depth, ties):
    """Return item -> how much it counts towards a depth."""
    found, top = {}, 1
    for group in groups:
        bottom = top + len(group) - 1
        if depth >= top:
            share = 1.0 if ties == "w" or depth >= bottom else (depth - top + 1) / len(group)
            found.update(dict.fromkeys(group, share))
        top = bottom + 1
    return found


def agreement(x, y, depth, ties, extra=0.0):
    """A_d of two dictionaries of shares; ``extra`` is added to the common part."""
    common = sum(share * y[item] for item, share in x.items() if item in y) + extra
    if ties == "w":
        return 2 * common / (sum(x.values()) + sum(y.values()))
    if ties == "a":
        return common / depth
    return common / math.sqrt(sum(v * v for v in x.values()) * sum(v * v for v in y.values()))


def size(groups):
    return sum(map(len, groups))


def rbo_of_long_lists(a, b, p, ties):
    """Sum the definition over lists given to depth DEEP."""
    return (1 - p) * sum(
        p ** (d - 1) * agreement(shares(a, d, ties), shares(b, d, ties), d, ties) for d in range(1, size(a) + 1)
    )


def rbo_min(a, b, p, ties, depth):
    """The definition, after both lists went on with items that nobody else has."""
    a = a + [[("a", i)] for i in range(depth - size(a))]
    b = b + [[("b", i)] for i in range(depth - size(b))]
    return rbo_of_long_lists(a, b, p, ties)


def rbo_max(a, b, p, ties, depth):
    """The definition, after both lists went on with each other's items, then with the same new ones."""
    only_a, only_b = ([i for i in levels(x) if i not in levels(y)] for x, y in ((a, b), (b, a)))
    a, b = a + [[i] for i in only_b], b + [[i] for i in only_a]
    new = [[("new", i)] for i in range(depth)]
    return rbo_of_long_lists((a + new[: depth - size(a)]), (b + new[: depth - size(b)]), p, ties)


def rbo_ext(a, b, p, ties, depth):
    """The definition of each depth's agreement, where the unseen part of the shorter list goes on as its seen part."""
    short, long = (a, b) if size(a) <= size(b) else (b, a)
    s, l = size(short), size(long)  # noqa: E741
    at_s = agreement(shares(short, s, ties), shares(long, s, ties), s, ties)
    total = last = 0.0
    for d in range(1, depth + 1):
        x, y = shares(short, d, ties), shares(long, d, ties)
        if d <= s:
            last = agreement(x, y, d, ties)
        elif d <= l:
            alone = [share for item, share in y.items() if item not in x]
            fill = {("unseen", i): 1.0 for i in range(d - s)}
            last = agreement(x | fill, y, d, ties, extra=(d - s) * at_s * sum(alone) / len(alone))
        total += p ** (d - 1) * last
    return (1 - p) * total
