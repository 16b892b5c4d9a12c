"""The grammar of metric names: what it reads, what it writes back, and what it refuses, all at once."""

import pytest

from recsys.errors import ConfigError
from recsys.evaluation.judging.names import MeasureName, parse_name, parse_names


def cut(data, k=None, p=0.9, kind="w", exact=True, location=None): ...


def whole(data): ...


TABLE = {"cut": cut, "whole": whole}


def read(text):
    return parse_name(text, TABLE, MeasureName)


@pytest.mark.parametrize(
    "text", ["cut", "whole", "cut@10", "cut[p=0.5]@3", "cut[p=0.5,kind=a]", "cut[exact=false]", "cut[location=7.0]"]
)
def test_a_name_is_request_and_label(text):
    assert str(read(text)) == text


def test_options_take_the_type_of_their_default():
    name = read(" cut[p=1, kind=b ,exact=false,location=7]@2 ")
    assert name.arguments() == {"p": 1.0, "kind": "b", "exact": False, "location": 7.0, "k": 2}
    assert isinstance(name.arguments()["p"], float)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Cut", "write it as name@k"),
        ("cut@", "write it as name@k"),
        ("cut@0", "at least 1"),
        ("cutt@5", "Did you mean 'cut'"),
        ("whole@5", "takes no cut-off"),
        ("whole[p=1]", "takes none"),
        ("cut[k=3]", "unknown option 'k'"),
        ("cut[knd=a]", "Did you mean 'kind'"),
        ("cut[p=x]", "not a number"),
        ("cut[exact=yes]", "true or false"),
        ("cut[p=.1,p=.2]", "given twice"),
    ],
)
def test_what_is_refused_and_why(text, says):
    with pytest.raises(ConfigError, match=says):
        read(text)


def test_all_bad_names_are_reported_at_once():
    with pytest.raises(ConfigError, match=r"'nope'.*\n.*'cut@0'"):
        parse_names(["cut", "nope", "cut@0"], read)
    with pytest.raises(ConfigError, match=r"named twice: cut@3"):
        parse_names(["cut@3", " cut@3"], read)
