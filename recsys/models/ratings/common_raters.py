"""The compiled prediction of a rating from the user's ratings of items that common users rated alike."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def predict_deviations(
    user_indptr: np.ndarray,
    user_items: np.ndarray,
    user_deviation: np.ndarray,
    item_indptr: np.ndarray,
    item_users: np.ndarray,
    item_deviation: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    neighbours: int,
    shrink: float,
    damping: float,
) -> np.ndarray:
    """Return the predicted deviation of each pair, float64[m], NaN where the user rated no similar item.

    The similarity of items i and j is computed over the users c who rated both, from the
    deviations e:

        s_ij = n / (n + shrink) · Σ_c e_ci e_cj / √(Σ_c e_ci² · Σ_c e_cj²)

    where n is their number. The deviation of (u, i) is Σ_j s_ij e_uj / (damping + Σ_j s_ij) over
    the ``neighbours`` items j of the user with the largest positive s_ij; of equal ones those of
    the lower rows. No matrix of similarities is stored: those of one item are computed for all its
    pairs.

    Args:
        user_indptr, user_items, user_deviation: the deviations by user (CSR).
        item_indptr, item_users, item_deviation: the same entries by item.
        users, items: int[m], rows ≥ 0 of each pair, sorted by item.
    """
    m = len(users)
    n_items = len(item_indptr) - 1
    predicted = np.full(m, np.nan)
    common = np.zeros(n_items, dtype=np.int64)
    product = np.zeros(n_items)
    square_i = np.zeros(n_items)
    square_j = np.zeros(n_items)
    touched = np.empty(n_items, dtype=np.int64)
    top_similarity = np.empty(neighbours)
    top_deviation = np.empty(neighbours)
    top_item = np.empty(neighbours, dtype=np.int64)
    start = 0
    while start < m:
        item = items[start]
        end = start
        while end < m and items[end] == item:
            end += 1
        n_touched = 0
        for entry in range(item_indptr[item], item_indptr[item + 1]):
            rater = item_users[entry]
            e_i = item_deviation[entry]
            for j_entry in range(user_indptr[rater], user_indptr[rater + 1]):
                j = user_items[j_entry]
                e_j = user_deviation[j_entry]
                if common[j] == 0:
                    touched[n_touched] = j
                    n_touched += 1
                common[j] += 1
                product[j] += e_i * e_j
                square_i[j] += e_i * e_i
                square_j[j] += e_j * e_j
        for pair in range(start, end):
            count = 0
            lowest = 0
            for j_entry in range(user_indptr[users[pair]], user_indptr[users[pair] + 1]):
                j = user_items[j_entry]
                if j == item or not product[j] > 0:
                    continue
                similarity = common[j] / (common[j] + shrink) * product[j] / np.sqrt(square_i[j] * square_j[j])
                if count < neighbours:
                    top_similarity[count] = similarity
                    top_deviation[count] = user_deviation[j_entry]
                    top_item[count] = j
                    count += 1
                elif similarity > top_similarity[lowest]:
                    top_similarity[lowest] = similarity
                    top_deviation[lowest] = user_deviation[j_entry]
                    top_item[lowest] = j
                else:
                    continue
                if count == neighbours:
                    lowest = 0
                    for place in range(1, count):
                        difference = top_similarity[place] - top_similarity[lowest]
                        # Of equal similarities the item with the higher row is replaced first.
                        if difference < 0 or (difference == 0 and top_item[place] > top_item[lowest]):
                            lowest = place
            if count:
                total = 0.0
                weight = damping
                for place in range(count):
                    total += top_similarity[place] * top_deviation[place]
                    weight += top_similarity[place]
                predicted[pair] = total / weight
        for position in range(n_touched):
            j = touched[position]
            common[j] = 0
            product[j] = 0.0
            square_i[j] = 0.0
            square_j[j] = 0.0
        start = end
    return predicted
