"""The tutorial applications of Flask and Django, mounted and used as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.gateway import ROOT, Gateway
from tests.support.mounted import gateway_with, log_of

STYLE = ROOT / "tests" / "support" / "flaskr" / "static" / "style.css"
MOUNTS = "/blog=tests.support.flaskr:create_app(),/site=tests.support.pollsite.wsgi:application"


def manage(database: Path, *arguments: str) -> None:
    """`manage.py` of the polls site."""
    subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.support.pollsite.settings",
            "POLLS_DATABASE": str(database),
            "PYTHONPATH": str(ROOT),
            "DJANGO_SUPERUSER_PASSWORD": "polls-secret",
        },
    )


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with both, each with a database of its own."""
    folder = tmp_path_factory.mktemp("sites")
    polls = folder / "polls.sqlite"
    manage(polls, "migrate", "--run-syncdb")
    manage(polls, "createsuperuser", "--noinput", "--username", "ada", "--email", "a@b.example")
    running = gateway_with(
        folder / "data",
        mounts=MOUNTS,
        env={"FLASKR_DATABASE": str(folder / "blog.sqlite"), "POLLS_DATABASE": str(polls)},
    )
    yield running
    running.stop()


@pytest.fixture
def browser(sites: Gateway) -> Iterator[Browser]:
    made = Browser(sites.port)
    yield made
    made.close()


def no_failures(sites: Gateway) -> bool:
    return not log_of(sites, "wsgi.app_failed") and not log_of(sites, "wsgi.app_misuse")


# -- Flask --------------------------------------------------------------------------------


def register(browser: Browser, name: str) -> None:
    browser.get("/blog/auth/register")
    assert browser.submit(username=name, password="secret").url == "/blog/auth/login"
    assert browser.submit(username=name, password="secret").url == "/blog/"
    assert f"<span>{name}</span>" in browser.page.text


def test_flask_registers_and_logs_in(sites: Gateway, browser: Browser) -> None:
    assert browser.get("/blog/hello").text == "Hello, World!"
    register(browser, "ada")
    assert "Log Out" in browser.page.text
    assert "Log In" in browser.get("/blog/auth/logout").text
    browser.get("/blog/auth/register")
    assert "User ada is already registered." in browser.submit(username="ada", password="x").text
    browser.get("/blog/auth/login")
    assert "Incorrect password." in browser.submit(username="ada", password="x").text
    assert "Username is required." not in browser.page.text
    assert no_failures(sites)


def test_flask_creates_edits_and_deletes_a_post(sites: Gateway, browser: Browser) -> None:
    assert browser.get("/blog/create").url == "/blog/auth/login"
    register(browser, "grace")
    assert "/blog/create" in browser.links()
    browser.get("/blog/create")
    long = "é" * 200_000  # a form of more than a megabyte once it is encoded
    assert browser.submit(title="A first post", body=long).url == "/blog/"
    assert "A first post" in browser.page.text
    assert long in browser.page.text
    (edit,) = [link for link in browser.links() if link.endswith("/update")]
    assert browser.get(edit).status == 200
    assert browser.forms()[0].fields["title"] == "A first post"
    assert browser.submit(title="Edited", body="shorter").url == "/blog/"
    assert "Edited" in browser.page.text
    assert long not in browser.page.text
    other = Browser(sites.port)
    register(other, "eve")
    assert other.get(edit).status == 403
    other.close()
    browser.get(edit)
    assert browser.submit(1).url == "/blog/"
    assert "Edited" not in browser.page.text
    assert browser.get(edit).status == 404
    assert no_failures(sites)


def test_flask_sends_its_static_file(sites: Gateway, browser: Browser) -> None:
    browser.get("/blog/")
    (style,) = [link for link in browser.links() if link.endswith(".css")]
    assert style == "/blog/static/style.css"
    page = browser.get(style)
    assert page.body == STYLE.read_bytes()
    assert page.headers["content-type"].startswith("text/css")
    found = sites.request("GET", style, headers={"If-None-Match": page.headers["etag"]})
    assert found.status == 304
    part = sites.request("GET", style, headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, STYLE.read_bytes()[5:10])
    whole = sites.request("HEAD", style)
    assert whole.headers["content-length"] == str(STYLE.stat().st_size)
    assert browser.get("/blog/static/missing.css").status == 404


# -- Django -------------------------------------------------------------------------------


def log_in(browser: Browser) -> None:
    page = browser.get("/site/admin/")
    assert page.url == "/site/admin/login/?next=/site/admin/"
    page = browser.submit(username="ada", password="polls-secret")
    assert (page.status, page.url) == (200, "/site/admin/")


def test_django_admin_refuses_a_wrong_password_and_a_missing_token(
    sites: Gateway, browser: Browser
) -> None:
    browser.get("/site/admin/")
    page = browser.submit(username="ada", password="wrong")
    assert "Please enter the correct username and password" in page.text
    assert browser.submit(csrfmiddlewaretoken="forged", username="ada", password="x").status == 403
    assert no_failures(sites)


def test_django_adds_a_poll_in_the_admin_and_takes_votes(sites: Gateway, browser: Browser) -> None:
    assert "No polls are available." in browser.get("/site/polls/").text
    log_in(browser)
    browser.get("/site/admin/polls/question/add/")
    (number,) = [n for n, form in enumerate(browser.forms()) if "question_text" in form.fields]
    page = browser.submit(
        number,
        **{
            "question_text": "What is new?",
            "choice_set-0-choice_text": "Not much",
            "choice_set-1-choice_text": "The sky",
        },
    )
    assert "was added successfully" in page.text
    voter = Browser(sites.port)
    voter.get("/site/polls/")
    (poll,) = [link for link in voter.links() if link.startswith("/site/polls/")]
    voter.get(poll)
    assert "What is new?" in voter.page.text
    assert "You didn&#x27;t select a choice." in voter.submit().text
    choices = voter.forms()[0].choices["choice"]
    assert len(choices) == 2
    for expected in ("1 vote<", "2 votes<"):
        voter.get(poll)
        page = voter.submit(choice=choices[1])
        assert page.url == f"{poll}results/"
        assert f"The sky -- {expected}" in page.text
    assert "Not much -- 0 votes" in page.text
    assert voter.get("/site/polls/999/").status == 404
    voter.close()
    assert no_failures(sites)


def test_django_sends_static_files(sites: Gateway, browser: Browser) -> None:
    import django.contrib.admin

    folder = Path(django.contrib.admin.__file__).parent / "static" / "admin"
    browser.get("/site/admin/login/")
    links = [link for link in browser.links() if link.startswith("/site/static/admin/")]
    assert len(links) >= 4
    for link in links:
        found = sites.request("GET", link)
        assert found.status == 200
        assert found.body == (folder / link.removeprefix("/site/static/admin/")).read_bytes()
        assert found.headers["content-length"] == str(len(found.body))
    assert sites.request("GET", "/site/static/polls/style.css").body.startswith(b"li a")
    assert sites.request("GET", "/site/static/../polls/").status == 200
    assert sites.request("GET", "/site/static/..%2Fsettings.py").status == 404
    assert no_failures(sites)


def test_both_count_under_their_prefixes(sites: Gateway, browser: Browser) -> None:
    for prefix, path in (("/blog", "/blog/hello"), ("/site", "/site/polls/")):
        name = f'ingest_requests_total{{status="200",type="mount:{prefix}"}}'
        before = sites.metric(name)
        assert browser.get(path).status == 200
        assert sites.metric(name) == before + 1
