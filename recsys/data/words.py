"""Words and names of the synthetic film world. Every taste has a genre and ten words."""

from __future__ import annotations

import numpy as np

THEMES = (
    ("adventure", "harbour lighthouse tide sailor reef storm captain island anchor shipwreck"),
    ("adventure", "glacier summit avalanche sledge expedition compass blizzard rope ridge camp"),
    ("comedy", "wedding cousin mix-up neighbour disguise landlord parrot suitcase in-laws picnic"),
    ("comedy", "office intern printer promotion boss lunch elevator meeting memo rival"),
    ("crime", "detective alibi warehouse informant ledger bribe precinct fingerprint heist vault"),
    ("crime", "courtroom verdict lawyer witness perjury judge appeal confession jury cell"),
    (
        "documentary",
        "archive footage glassworks craft village interview factory machine strike museum",
    ),
    ("documentary", "whale forest beetle migration river drought ranger nest wolf meadow"),
    ("drama", "widow inheritance farmhouse letter silence orchard brother illness farewell debt"),
    ("drama", "teacher classroom immigrant suburb dormitory scholarship exam mentor poem dropout"),
    ("family", "puppy treehouse grandmother circus bicycle kite snowman holiday birthday toy"),
    ("family", "dragon apprentice wizard castle spell goblin prince riddle crown enchanted"),
    ("horror", "cellar whisper fog doll possession attic scream graveyard curse mirror"),
    (
        "horror",
        "parasite laboratory outbreak quarantine swarm mutation bunker infection teeth tunnel",
    ),
    ("music", "band drummer tour rehearsal guitar record stage chorus manager encore"),
    ("music", "ballet dancer audition conductor opera violin premiere theatre rehearsed aria"),
    (
        "romance",
        "summer balcony waltz stranger train-station bookshop confess kiss engaged postcard",
    ),
    (
        "science fiction",
        "orbit android colony starship signal clone airlock planet reactor wormhole",
    ),
    (
        "science fiction",
        "timeline paradox inventor future memory algorithm simulation loop code glitch",
    ),
    ("war", "trench lieutenant bridge telegram retreat medic siege partisan radio border"),
)
"""(genre, ten words) of each taste of the synthetic film world.

Several tastes share a genre, so the words say more about a film than its genre.
"""

COMMON = "night town family secret friend road morning promise letter past winter city money journey home".split()
"""Words that films of all tastes have in their overviews."""
OVERVIEW = (
    "Between a {0} and a {1} lies a {6}: what the {2} began, the {3} must end,"
    " and neither {4} nor {5} will ever be the same {7} again."
)
"""Template of the overview of a film, with numbered places for words.

The words 0 to 3 are of the main taste of the film, 4 and 5 of its second taste, and 6 and 7 are
from :data:`COMMON`.
"""

COUNTRIES = ("Arvenia", "Belmora", "Costrane", "Dunmark", "Estoria")
AGE_GROUPS = ("under 18", "18-24", "25-34", "35-49", "50-64", "65 and over")

_ADJECTIVES = (
    "Amber Borrowed Broken Crooked Distant Eastern Empty Fading Forgotten Frozen Gilded Hidden Hollow Iron Last"
    " Lonely Lost Northern Paper Patient Quiet Restless Scarlet Second Silent Sleeping Stolen Sudden Velvet Wandering"
).split()
_NOUNS = (
    "Almanac Arcade Bargain Bell Calendar Carousel Corridor Crossing Daughter Echo Feast Garden Hour Journey"
    " Kingdom Lantern Map Melody Mountain Ocean Passage Season Shadow Signal Staircase Station Summer Tenant Tower"
    " Visitor"
).split()
_FIRST = (
    "Ada Bruno Celo Dario Elke Fenna Gilo Hanne Ivo Jara Kaspar Lio Mirel Nilo Orla Pavo Runa Silo Tova Vida".split()
)
_START = "Bar Cal Dor Fen Gar Hol Kes Lam Mor Nel Ost Pel Quin Ros Sal Tor Ul Ven Wex Zan".split()
_END = "adek ander ava bury dale eki enko ette holm ini lund mark mond ova quist rell stad tano vik worth".split()


def person_names(count: int) -> np.ndarray:
    """Return ``count`` made-up names, as an object array of text. Beyond 8,000 the names repeat."""
    mixed = np.arange(count) * 3_067 % (len(_FIRST) * len(_START) * len(_END))
    first, family = np.divmod(mixed, len(_START) * len(_END))
    start, end = np.divmod(family, len(_END))
    return np.array(
        [f"{_FIRST[f]} {_START[s]}{_END[e]}" for f, s, e in zip(first, start, end, strict=True)],
        dtype=object,
    )


def film_titles(numbers: np.ndarray) -> list[str]:
    """Return one title per number. Equal numbers have equal titles, and there are 900 different
    titles.

    Args:
        numbers: int[n], each ≥ 0.
    """
    adjective, noun = np.divmod(numbers % (len(_ADJECTIVES) * len(_NOUNS)), len(_NOUNS))
    return [f"The {_ADJECTIVES[a]} {_NOUNS[n]}" for a, n in zip(adjective, noun, strict=True)]
