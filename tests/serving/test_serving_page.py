"""The page of the server in a browser, and the Python clients, against one server process."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from chromium import CHROMIUM, Chromium
from serving_process import ServerProcess

import recsys
from recsys.errors import ConfigError, InputError, RunFolderError

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

MARKUP = "<img src=x onerror=document.title='attacked'> & \"so\""


@pytest.fixture(scope="module")
def server(bundles, tmp_path_factory):
    """A server of both bundles, with a store."""
    store = tmp_path_factory.mktemp("page") / "events.db"
    with ServerProcess(f"als={bundles['als']}", f"hybrid={bundles['hybrid']}", "--store", store) as process:
        yield process


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_page_from_a_search_to_a_comparison(server):
    items = "[...document.querySelectorAll('#first .title')].map((title) => title.textContent)"
    with Chromium(390, dark=True) as page:
        page.open(server.url)
        page.wait_for("document.querySelectorAll('#first li').length === 10")
        # By keyboard alone: find an item and like it.
        page.evaluate("document.querySelector('#item').focus()")
        page.type("<img")
        page.key("Enter")
        page.wait_for("document.querySelectorAll('#found li').length === 1")
        assert page.evaluate("document.querySelector('#found .title').textContent") == MARKUP
        before = page.evaluate(items)
        for _ in range(2):
            page.key("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"Like: {MARKUP}"
        page.key("Enter")
        page.wait_for("document.querySelector('#status').textContent.includes('New events taken in: 1')")
        after = page.evaluate(items)
        assert after != before
        assert MARKUP not in after
        assert MARKUP in page.evaluate("document.querySelector('#chosen').textContent")
        # Somebody whom the model knows: a dislike goes to the store, and the list changes.
        page.evaluate("document.querySelector('#user').focus()")
        page.type("u0001")
        page.key("Enter")
        page.wait_for("document.querySelector('#status').textContent === 'User u0001.'")
        first = page.evaluate(items)
        page.evaluate("document.querySelectorAll('#first li button')[1].click()")
        page.wait_for("document.querySelector('#status').textContent.includes('New events')")
        assert first[0] not in page.evaluate(items)
        # Two models side by side, with their agreement.
        page.evaluate("document.querySelector('#other').value = 'hybrid'")
        page.evaluate("document.querySelector('#other').dispatchEvent(new Event('change'))")
        page.wait_for("document.querySelectorAll('#second li').length === 10", seconds=90)
        said = page.evaluate("document.querySelector('#agreement').textContent")
        assert re.search(r"\d+ items in common; Kendall's tau -?\d\.\d{3}, rank-biased overlap \d\.\d{3}", said)
        # A rule, and what it removes; then one that is wrong.
        page.evaluate("document.querySelector('#rules').value = '{\"deny\": [\"f001\"]}'")
        page.evaluate("document.querySelector('#apply').click()")
        page.wait_for("document.querySelector('#status').textContent.includes('Removed by the rule deny: 1.')")
        page.evaluate("document.querySelector('#rules').value = '{\"dney\": []}'")
        page.evaluate("document.querySelector('#apply').click()")
        page.wait_for("document.querySelector('#status').classList.contains('error')")
        page.evaluate("document.querySelector('#rules').value = ''")
        # The dialogue with somebody new.
        page.evaluate("document.querySelector('#ask').click()")
        page.wait_for("document.querySelector('#question-text').textContent !== ''")
        question = page.evaluate("document.querySelector('#question-text').textContent")
        page.key("Enter")
        page.wait_for("document.querySelector('#status').textContent === '1 answers so far.'")
        assert page.evaluate("document.querySelector('#question-text').textContent") != question
        # What holds of any page.
        assert page.evaluate("document.title") == "recsys"
        assert page.evaluate("document.images.length") == 0
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        unnamed = "[...document.querySelectorAll('input, select, textarea')].filter((e) => !e.labels.length).length"
        assert page.evaluate(unnamed) == 0
        small = (
            "[...document.querySelectorAll('button, input, select')].filter((e) => e.checkVisibility()"
            " && e.getBoundingClientRect().height < 40).length"
        )
        assert page.evaluate(small) == 0
        assert faint(page) == []
        assert {url.split("/")[2] for url in page.requests} == {server.url.split("/")[2]}
        # The refused rule is the one error of all this.
        assert [line for line in page.console if "422" not in line] == []
        # The policy: a script inside the page does not run.
        inject = "document.body.append(Object.assign(document.createElement('script'), {text: 'window.attacked = 1'}))"
        page.evaluate(inject)
        assert page.evaluate("window.attacked === undefined")
        assert any("Content Security Policy" in line for line in page.console)


def faint(page):
    """Return the texts whose contrast is below AA."""
    probe = Path(__file__).parents[1].joinpath("browser", "probe.js").read_text(encoding="utf-8")
    reply = "new Promise((done) => { addEventListener('message', (e) => done(e.data), {once: true}); " + probe + "})"
    return json.loads(page.evaluate(reply))["faint"]


def test_the_files_of_the_page_have_its_policy(server):
    for path, kind in (("", "text/html"), ("page/page.js", "text/javascript"), ("page/page.css", "text/css")):
        with urllib.request.urlopen(server.url + path) as response:
            assert response.headers["Content-Type"].startswith(kind)
            policy = response.headers["Content-Security-Policy"]
            text = response.read().decode()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http:" not in text.replace("http://www.w3.org", "")
        assert "https:" not in text
        assert "innerHTML" not in text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", text)


@pytest.fixture(scope="module")
def clients(server, bundles):
    """The two Python clients of the same bundle."""
    return recsys.load(bundles["als"]), recsys.connect(server.url, model="als")


CALLS = {
    "a user": lambda client: client.recommend(user="u0003", k=4),
    "a history": lambda client: client.recommend(history=["f001", {"item": "f002", "value": -1}], details=True),
    "rules": lambda client: client.recommend("u0003", rules={"deny": ["f001"]}, exclude=["f002"], reasons=True),
    "attributes": lambda client: client.recommend(attributes={"country": "Estoria"}),
    "similar": lambda client: client.similar("f005", k=3),
    "an explanation": lambda client: client.explain("u0003", "f005"),
    "an item": lambda client: client.item("f005"),
    "onboarding": lambda client: client.onboard([(client.onboard()["question"]["item"], "like")], k=3),
}


@pytest.mark.parametrize("call", CALLS)
def test_both_clients_give_the_same_answers(clients, call):
    answers = [CALLS[call](client) for client in clients]
    local, remote = (answer | {"request_id": "", "model": ""} for answer in answers)
    assert local == remote
    assert local


REFUSED = {
    "k": lambda client: client.recommend("a", k=0),
    "an option": lambda client: client.recommend("a", explian=True),
    "an item": lambda client: client.item("zz/z"),
    "a value": lambda client: client.recommend(history=[{"item": "a", "value": float("nan")}]),
    "a type": lambda client: client.recommend(history=[object()]),
    "an answer": lambda client: client.onboard([("f001", "maybe")]),
    "an id": lambda client: client.similar(5.0),
    "a truth for an id": lambda client: client.similar(True),
    "text for k": lambda client: client.similar("f005", k="3"),
    "a long list": lambda client: client.recommend("u0003", k=1001),
    "reasons": lambda client: client.recommend("u0003", k=101, reasons=True),
    "a model": lambda client: client.recommend("u0003", model="al"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_both_clients_refuse_the_same(clients, call):
    messages = []
    for client in clients:
        with pytest.raises(InputError) as refused:
            REFUSED[call](client)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


def test_a_client_sends_events(server):
    client = recsys.connect(server.url)
    event = {"id": "client-1", "user": "from a client", "item": "f003"}
    assert client.add_events([event])["accepted"] == 1
    assert client.add_events([event])["repeated"] == 1
    assert client.recommend("from a client")["new_events"] == 1


def test_where_there_is_no_server_or_no_bundle_is_said(tmp_path):
    with pytest.raises(InputError, match="no answer of recsys serve"):
        recsys.connect("http://127.0.0.1:9").recommend("a")
    with pytest.raises(ConfigError, match="URL of a server"):
        recsys.connect("bundles/als")
    with pytest.raises(RunFolderError):
        recsys.load(tmp_path)


def test_the_agreement_of_two_lists(clients, server):
    def agreement(a, b):
        status, answer = server.call("POST", "/agreement", {"a": a, "b": b})
        assert status == 200, answer
        return answer

    same = agreement(["a", "b", "c"], ["a", "b", "c"])
    assert same == {"tau": pytest.approx(1), "rbo": pytest.approx(1), "common": 3}
    # The items that a list lacks are tied below its last: of the 15 pairs of six items, 9 are discordant,
    # and each list ties 3.
    apart = agreement(["a", "b", "c"], ["x", "y", "z"])
    assert apart == {"tau": pytest.approx(-9 / 12), "rbo": pytest.approx(0), "common": 0}
    assert agreement([], ["x"]) == {"tau": None, "rbo": None, "common": 0}
    assert server.call("POST", "/agreement", {"a": ["a", "a"], "b": ["x"]})[0] == 422
