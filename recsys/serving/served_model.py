"""One served bundle, with all that its answers need.

The lists are those of ``recsys recommend``: both call ``SavedModel.recommend``. For a large catalogue
``ranking.item_scan`` makes the same lists in less time. Every method may take long, so a server calls
them in its scoring thread, one at a time; only a list that is quick (:meth:`ServedModel.is_quick`) is made in
the event loop. Searches run no compiled code, and have another thread.
"""

from __future__ import annotations

import gc
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys import run_files
from recsys.errors import InputError, suggest_nearest
from recsys.fingerprint import fingerprint
from recsys.models.collaborative.als import ALS
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.wrappers import StoredFactors
from recsys.models.onboarding import Answers, Onboarding
from recsys.ranking import rerank
from recsys.ranking.business_rules import CompiledRules, Rules, compile_rules
from recsys.ranking.item_scan import ItemScan
from recsys.recommender import Recommender
from recsys.report.reasons import Reasons, explain_score
from recsys.saved.open_model import SavedModel, is_bundle, open_model
from recsys.saved.restore_values import restore_values
from recsys.saved.similar_items import items_that_go_with
from recsys.schema import ITEM, USER
from recsys.serving.answers import (
    ExplainAnswer,
    ItemAnswer,
    ListAnswer,
    ListedItem,
    LoadedModel,
    OnboardAnswer,
    Part,
)
from recsys.serving.histories import NOBODY, UserEvent, add_events, is_new_to
from recsys.serving.requests import (
    HistoryEntry,
    ListOptions,
    ListRequest,
    OnboardRequest,
)
from recsys.types import SHORTFALL, Histories, IdMap, TopK

REPLIES = {"like": 1, "dislike": -1, "unknown": 0}
"""Word of a request -> the answer of a new user, as :mod:`recsys.models.onboarding` has it."""

MAX_RULES = 64
"""Number of different rules that are kept compiled."""

SCAN_ITEMS = 20_000
"""Number of items from which the lists of factor models are made by a scan of int8 codes."""

MAX_PARTS = 20
"""Largest number of parts of one kind in an explanation; those with the largest sizes are kept."""

QUICK_SECONDS = 0.004
"""Largest CPU time of a list that the event loop makes itself, in seconds.

To hand a list to another thread and back takes about 0.0001 seconds. It also delays the event loop: Python
lets a thread go on for 0.005 seconds before another one gets its turn, and a list that takes less is finished
before that.
"""

TRIAL_SECONDS = 0.02
"""CPU time for which a list is made again and again to know how long it takes, in seconds. It is made at least once."""

QUICK_LENGTH = 200
"""Largest number of items that a quick request names or asks for."""

ONBOARDING_BYTES = 2**30
"""Onboarding is refused if its tables would be larger."""


@dataclass(frozen=True)
class Exploration:
    """How a list is drawn at random (:func:`recsys.ranking.rerank.explore`).

    Attributes:
        temperature: above 0. Near 0 the list is almost the usual one; higher is more random.
        seed: the seed of the draw, ≥ 0.
    """

    temperature: float
    seed: int


@dataclass
class ServedModel:
    """A saved model with its titles and the texts of its ids, opened once and never changed.

    Attributes:
        name: the name under which the server has it.
        path: the folder of the bundle or run.
        saved: the model, with its histories and items.
        version: the first 16 digits of the SHA-256 of the card of the bundle (which has the SHA-256
            of every other file), or of the manifest of a run.
        item_ids: the id of each item, as text.
        titles: the title of each item, or None if the items have no titles.
        reasons: the titles and attributes of the items, for sentences that explain a list.
        loaded: the time at which the model was opened, as ISO text in UTC.
    """

    name: str
    path: Path
    saved: SavedModel
    version: str
    item_ids: list[str]
    titles: list[str | None] | None
    reasons: Reasons
    loaded: str
    _rules: OrderedDict[str, CompiledRules] = field(default_factory=OrderedDict)
    _onboarding: Onboarding | None = None
    _seconds: float = math.inf

    @classmethod
    def open(cls, name: str, path: Path) -> ServedModel:
        """Read a bundle or a run. :meth:`warm` makes its first answers fast.

        Raises:
            RunFolderError: the folder cannot be served.
        """
        version = version_of(path)
        saved = open_model(path)
        titles = None
        if "title" in saved.items:
            titles = [None if pd.isna(title) else str(title) for title in saved.items["title"]]
        return cls(
            name,
            path,
            saved,
            version,
            [str(item) for item in saved.history.items.all_ids],
            titles,
            Reasons(saved.items),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def warm(self) -> None:
        """Answer a known and an unknown user, which fills caches, compiles kernels, and tells how long a list takes."""
        history: list[HistoryEntry | str] = list(self.item_ids[:2])
        user_ids = [*map(str, self.saved.history.users.all_ids[:1]), NOBODY]
        requests = [ListRequest.model_construct(user=user_id, history=history) for user_id in user_ids]
        requests += [ListRequest.model_construct(user=user_id) for user_id in user_ids]
        for request in requests:
            self.recommend(request)
        self._seconds = max(self._seconds_of(request) for request in requests)
        # A search of this model for garbage would delay a list, and it lives as long as it is served. What is frozen
        # now is searched when the next model is warmed.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _seconds_of(self, request: ListRequest) -> float:
        """Return the CPU seconds of a list, the fewest of several times."""
        times: list[float] = []
        # The first lists bring the factors into the caches of the processor, and take longer than the next ones.
        while sum(times) < TRIAL_SECONDS:
            # The other processes of a busy machine do not count.
            start = time.thread_time()
            self.recommend(request)
            times.append(time.thread_time() - start)
        return min(times)

    def is_quick(self, request: ListRequest) -> bool:
        """Return whether the list of a request takes at most about :data:`QUICK_SECONDS`."""
        if self._seconds > QUICK_SECONDS or request.reasons or request.details:
            return False
        if request.rules is not None or request.only is not None or request.attributes:
            return False
        return max(request.k, len(request.history), len(request.exclude)) <= QUICK_LENGTH

    def about(self, refused: str = "") -> LoadedModel:
        """Return what ``/ready`` says of the bundle."""
        return {
            "model": self.name,
            "kind": self.saved.name,
            "version": self.version,
            "users": len(self.saved.history.users),
            "items": len(self.item_ids),
            "loaded": self.loaded,
            "refused": refused,
        }

    def recommend(
        self,
        request: ListRequest,
        events: Sequence[UserEvent] = (),
        exploration: Exploration | None = None,
    ) -> ListAnswer:
        """Return the list that a request asks for.

        Args:
            events: the events of the user in the store. Those that the bundle has already do not count again.
            exploration: how the list is drawn at random. None: the best items, best first.

        Raises:
            InputError, ConfigError: a rule or an attribute does not fit the bundle.
        """
        users = self._users(request)
        history, new_events, unknown = self._history(request, events)
        candidates = self._candidates(request, unknown)
        rules = None
        if request.rules is not None:
            rules = self._compile(request.rules, _user_id(request))
            unknown += [str(item) for name, ids in rules.unknown.items() if "users" not in name for item in ids]
        length = request.k if exploration is None else rerank.pool_size(request.k)
        lists = None
        if rules is None and not request.attributes:
            lists = self._scan_lists(request, length, history, candidates)
        if lists is None:
            lists = self.saved.recommend(users, length, histories=history, candidates=candidates, rules=rules)
        probabilities = None
        if exploration is not None:
            pool = lists
            lists = rerank.explore(pool, request.k, exploration.temperature, exploration.seed)
            probabilities = rerank.draw_probabilities(pool, lists, exploration.temperature)[0].tolist()
        answer: ListAnswer = {
            "request_id": "",
            "user": request.user,
            "model": self.name,
            "version": self.version,
            "items": self._listed_items(lists, request),
            "shortfall": SHORTFALL[lists.shortfall[0]],
            "has_history": bool(self._user_row(request.user) >= 0),
            "new_events": new_events,
            "unknown_items": list(dict.fromkeys(unknown)),
        }
        if request.reasons:
            self._add_reasons(answer["items"], users, _user_id(request), history)
        if probabilities is not None:
            for item, probability in zip(answer["items"], probabilities, strict=False):
                item["probability"] = probability
        if rules is not None:
            answer["removed"] = rules.removed
        return answer

    def _add_reasons(
        self, items: list[ListedItem], users: list[str] | pd.DataFrame, user_id: str, history: Histories | None
    ) -> None:
        """Add to each listed item the sentence that says why it is listed.

        Args:
            items: the items of the list.
            users: the user, as :meth:`_users` returns it.
            user_id: the id of the user.
            history: the history with new events. None: the user's history in the bundle.
        """
        recommender = self.saved.recommender(users, use_stored_factors=history is None)
        if history is None:
            history = self.saved.histories([user_id])
        for item in items:
            row = self.item_row(item["item"])
            item["reason"] = explain_score(self.saved.name, recommender, self.reasons, history, row).sentence

    def _scan_lists(
        self, request: ListRequest, k: int, history: Histories | None, candidates: np.ndarray | None
    ) -> TopK | None:
        """Return the list of a user by a scan of the codes of items, or None if it cannot be made so.

        It cannot for small catalogues, for models and users without factors, and for short lists.
        """
        if self._item_scan is None:
            return None
        user_ids = [_user_id(request)]
        histories = self.saved.histories(user_ids) if history is None else history
        recommender = self.saved.recommender(user_ids, use_stored_factors=history is None)
        member = _scoring_member(recommender, histories)
        if not isinstance(member, ALS | StoredFactors):
            return None
        seen = histories.values.indices
        if not self.saved.config.recommend.exclude_seen:
            seen = seen[:0]
        ranked = self._item_scan.top_k(member.user_vectors(histories)[0], k, seen, candidates)
        if ranked is None:
            return None
        items, scores = ranked
        source = recommender.source(histories, items)
        return TopK(np.arange(1), items, scores, source, recommender.sources, np.zeros(1, dtype=np.int8))

    @cached_property
    def _item_scan(self) -> ItemScan | None:
        """The codes of the items, if there are so many that a scan is faster than all exact scores."""
        model = self.saved.model
        first = next(iter(model.members.values())) if isinstance(model, Cascade) else model
        # Models that are derived from ALS may score in another way.
        if type(first) is not ALS or len(self.item_ids) < SCAN_ITEMS:
            return None
        return ItemScan.encode(first.item_factors_, first.known_)

    def _user_row(self, user: str | None) -> int:
        return -1 if user is None else int(self.saved.history.users.rows([user])[0])

    def _users(self, request: ListRequest) -> list[str] | pd.DataFrame:
        """Return the user of a request, as a table of one row if the request has attributes.

        Raises:
            InputError: the bundle has no segments, or they do not use such an attribute.
        """
        user_ids = [_user_id(request)]
        # A table of pandas takes as long as the scores of 27,000 items.
        if not request.attributes:
            return user_ids
        segments = self.saved.segments
        if segments is None:
            raise InputError("attributes: this bundle has no segments, so nothing is known of users with attributes.")
        for name in request.attributes:
            if name not in segments.columns:
                raise InputError(
                    f"attributes: {name!r} is not a column of the segments.{suggest_nearest(name, segments.columns)}"
                )
        return pd.DataFrame({USER: user_ids}, dtype=object).assign(**request.attributes)

    def _history(self, request: ListRequest, events: Sequence[UserEvent]) -> tuple[Histories | None, int, list[str]]:
        """Return the history of a request's user, the number of new events in it, and unknown items.

        The history is None if it is that of the bundle.

        Raises:
            InputError: an event of the request has a type without a weight.
        """
        sent = history_events(request.history, time.time())
        self._check_event_types(sent)
        new_events = [*events, *sent]
        if not new_events:
            return None, 0, []
        history = self._no_history if request.user is None else self.saved.histories([request.user])
        row_of_item = self._row_of_item
        row_list = [row_of_item.get(event[0], -1) for event in new_events]
        rows = np.array(row_list, dtype=np.int32)
        unknown = []
        if -1 in row_list:
            sent_rows = row_list[len(events) :]
            unknown = [event[0] for event, row in zip(sent, sent_rows, strict=True) if row < 0]
        if events:
            stored = len(events)
            is_new = is_new_to(history, rows[:stored], new_events[:stored]) + [True] * len(sent)
            new_events = list(compress(new_events, is_new))
            rows = rows[is_new]
        if not new_events:
            return None, 0, unknown
        extended, count = add_events(self.saved, history, rows, new_events)
        return (extended if count else None), count, unknown

    @cached_property
    def _no_history(self) -> Histories:
        return self.saved.histories([NOBODY])

    def _check_event_types(self, events: list[UserEvent]) -> None:
        weights = self.saved.config.weigh.events
        if not weights:
            return
        for _, _, _, kind in events:
            if kind is not None and kind not in weights:
                raise InputError(f"event {kind!r} has no weight in this bundle.{suggest_nearest(kind, weights)}")

    def accepts_event(self, event: str | None) -> bool:
        """Return whether a run with the weights of this bundle can be trained on an event of this type.

        Args:
            event: the type, or None for an event without one, which is of the type ``""`` in a log with types.
        """
        weights = self.saved.config.weigh.events
        return not weights or (event or "") in weights

    def _candidates(self, request: ListRequest, unknown: list[str]) -> np.ndarray | None:
        """Return which items the list may name, bool[items], or None for all.

        Ids that the bundle does not have are added to ``unknown``.
        """
        if request.only is None and not request.exclude:
            return None
        candidates = np.ones(len(self.item_ids), dtype=bool)
        if request.only is not None:
            candidates[:] = False
            candidates[self._known_rows(request.only, unknown)] = True
        candidates[self._known_rows(request.exclude, unknown)] = False
        return candidates

    def _known_rows(self, items: list[str], unknown: list[str]) -> np.ndarray:
        rows = np.array([self.item_row(item) for item in items], dtype=np.int64)
        unknown += [item for item, row in zip(items, rows, strict=True) if row < 0]
        return rows[rows >= 0]

    def _compile(self, rules: Rules, user_id: str) -> CompiledRules:
        """Return rules as arrays. The last ones are kept, because a shop asks with the same rules again.

        Raises:
            InputError, ConfigError: a rule does not fit the items.
        """
        key = rules.model_dump_json()
        # Which user a row is matters only for items that are denied for some users.
        if rules.deny_for:
            return compile_rules(rules, IdMap.from_ids([user_id]), self.saved.history.items, self.saved.items)
        if key not in self._rules:
            nobody = IdMap.from_ids([NOBODY])
            self._rules[key] = compile_rules(rules, nobody, self.saved.history.items, self.saved.items)
            if len(self._rules) > MAX_RULES:
                self._rules.popitem(last=False)
        self._rules.move_to_end(key)
        return self._rules[key]

    def _listed_items(self, lists: TopK, options: ListOptions) -> list[ListedItem]:
        """Return the one list of ``lists`` as JSON, best first."""
        listed: list[ListedItem] = []
        rows = lists.items[0].tolist()
        scores = lists.scores[0].tolist()
        sources = lists.source[0].tolist()
        for position, row in enumerate(rows):
            if row < 0:
                break
            item: ListedItem = {
                "item": self.item_ids[row],
                "rank": position + 1,
                "score": scores[position],
                "source": lists.sources[sources[position]],
            }
            if self.titles is not None and (title := self.titles[row]) is not None:
                item["title"] = title
            if options.details:
                item["attributes"] = self._attributes(row)
            listed.append(item)
        return listed

    def item_row(self, item: str) -> int:
        """Return the row of an item, or -1."""
        return self._row_of_item.get(item, -1)

    @cached_property
    def _row_of_item(self) -> dict[str, int]:
        # A history has many items, for which a dict takes a tenth of the time of an IdMap.
        return {item: row for row, item in enumerate(self.item_ids)}

    def item(self, row: int) -> ItemAnswer:
        """Return an item with its attributes."""
        answer: ItemAnswer = {"item": self.item_ids[row], "attributes": self._attributes(row)}
        if self.titles is not None and (title := self.titles[row]) is not None:
            answer["title"] = title
        return answer

    def _attributes(self, row: int) -> dict[str, Any]:
        cells = self.saved.items.iloc[row].drop([ITEM, "title"], errors="ignore")
        return {str(name): _json_value(cell) for name, cell in cells.items()}

    def search_items(self, text: str, limit: int) -> list[ItemAnswer]:
        """Return at most ``limit`` items whose id or title has a text, in the order of the items."""
        part = text.casefold()
        found_rows = []
        for row, item_id in enumerate(self.item_ids):
            title = "" if self.titles is None else self.titles[row] or ""
            if part in title.casefold() or part in item_id.casefold():
                found_rows.append(row)
                if len(found_rows) == limit:
                    break
        return [self.item(row) for row in found_rows]

    def search_users(self, text: str, limit: int) -> list[str]:
        """Return the ids of at most ``limit`` users that have a text, in the order of the users."""
        part = text.casefold()
        ids = []
        for user_id in self.saved.history.users.all_ids:
            if part in str(user_id).casefold():
                ids.append(str(user_id))
                if len(ids) == limit:
                    break
        return ids

    def similar(self, row: int, options: ListOptions) -> list[ListedItem]:
        """Return the items that go with an item.

        Raises:
            InputError: the model knows nothing that goes with it.
        """
        lists = items_that_go_with(self.saved, row, options.k)
        return self._listed_items(lists, options)

    def explain(self, user: str, row: int, events: Sequence[UserEvent] = ()) -> ExplainAnswer:
        """Return why a user gets an item, by the history that :meth:`recommend` uses too."""
        request = ListRequest(user=user)
        extended, _, _ = self._history(request, events)
        users = self._users(request)
        history = self.saved.histories([user]) if extended is None else extended
        recommender = self.saved.recommender(users, use_stored_factors=extended is None)
        explained = explain_score(self.saved.name, recommender, self.reasons, history, row)
        explanation = explained.explanation
        history_parts: list[tuple[str, float]] = []
        if explanation.history is not None:
            names = [self.reasons.title(int(entry)) for entry in history.values.indices]
            history_parts = list(zip(names, explanation.history.tolist(), strict=True))
        score = float(explanation.score)
        return {
            "request_id": "",
            "user": user,
            "item": self.item_ids[row],
            "model": self.name,
            "version": self.version,
            "scored_by": explained.model,
            "score": None if np.isnan(score) else score,
            "reason": explained.sentence,
            "missing": explained.missing,
            "note": explanation.note,
            "constant": float(explanation.constant),
            "history": _largest_parts(history_parts),
            "features": _largest_parts(list(self.reasons.item_features(explanation.features, row).items())),
            "members": _largest_parts(list(explanation.members.items())),
        }

    def onboard(self, request: OnboardRequest) -> OnboardAnswer:
        """Return the next question to a new user, and the list by the answers so far.

        Raises:
            InputError: an answer is about an item that is not asked about, or the catalogue is too
                large for onboarding.
        """
        model = self.prepare_onboarding()
        answers: Answers = {}
        for answer in request.answers:
            row = self.item_row(answer.item)
            if row not in model.column_of_:
                raise InputError(f"answers: {answer.item!r} is not an item that is asked about.")
            answers[row] = REPLIES[answer.answer]
        question = model.question(answers)
        return {
            "request_id": "",
            "model": self.name,
            "version": self.version,
            "question": None if question is None else self.item(question),
            "items": self._listed_items(model.recommend(answers, request.k), request),
        }

    @property
    def can_onboard(self) -> bool:
        """Whether :meth:`prepare_onboarding` was called."""
        return self._onboarding is not None

    def prepare_onboarding(self) -> Onboarding:
        """Return the fitted onboarding of this bundle. The first call fits it.

        It takes seconds for a large log, and no compiled parallel code. So a server calls it in a thread
        of its own, beside the scoring thread.

        Raises:
            InputError: the catalogue is too large for onboarding.
        """
        if self._onboarding is not None:
            return self._onboarding
        if 8 * Onboarding().candidates * len(self.item_ids) > ONBOARDING_BYTES:
            raise InputError("onboarding is not available: this bundle has too many items for its tables.")
        history, least_like = restore_values(self.saved.history, self.saved.config, None, lambda sentence: None)
        self._onboarding = Onboarding(like=least_like).fit(history)
        return self._onboarding


def _scoring_member(model: Recommender, history: Histories) -> Recommender | None:
    """Return the model that scores one history: the member of a cascade, or the model itself; None if none can."""
    if isinstance(model, Cascade):
        member = model.scoring_member(history)
        return None if member is None else member[1]
    return model if model.can_score(history)[0] else None


def _user_id(request: ListRequest) -> str:
    return NOBODY if request.user is None else request.user


def history_events(entries: list[HistoryEntry | str], now: float) -> list[UserEvent]:
    """Return the history of a request as events.

    Entries without a time are in their order, a second apart, the last one at ``now``.
    """
    first = now - (len(entries) - 1)
    events: list[UserEvent] = []
    for position, entry in enumerate(entries):
        if isinstance(entry, str):
            events.append((entry, 1.0, first + position, None))
        else:
            timestamp = first + position if entry.timestamp is None else entry.timestamp
            events.append((entry.item, entry.value, float(timestamp), entry.event))
    return events


def version_of(path: Path) -> str:
    """Return what tells this bundle or run from every other one."""
    card = run_files.BUNDLE_CARD if is_bundle(path) else run_files.MANIFEST
    if not (path / card).is_file():
        return ""
    return fingerprint(path / card).removeprefix("sha256:")[:16]


def _largest_parts(parts: list[tuple[str, float]]) -> list[Part]:
    """Return the parts with the largest sizes, largest first, and the sum of the rest as one part."""
    ordered = sorted(parts, key=lambda part: -abs(part[1]))
    largest: list[Part] = [{"name": str(name), "value": float(value)} for name, value in ordered[:MAX_PARTS]]
    if len(ordered) > MAX_PARTS:
        rest = float(sum(value for _, value in ordered[MAX_PARTS:]))
        largest.append({"name": f"{len(ordered) - MAX_PARTS} more", "value": rest})
    return largest


def _json_value(cell: Any) -> Any:
    """Return a cell of the items table as a value that JSON has."""
    if isinstance(cell, np.ndarray | list | tuple):
        return [_json_value(value) for value in cell]
    if isinstance(cell, np.generic):
        cell = cell.item()
    if cell is None or cell is pd.NA or cell is pd.NaT or cell != cell:
        return None
    if isinstance(cell, bool | int | str):
        return cell
    if isinstance(cell, float):
        return cell if np.isfinite(cell) else None
    return str(cell)
