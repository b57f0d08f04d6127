"""A browser's share of HTTP: cookies, forms with their hidden fields, redirects."""

from __future__ import annotations

import http.client
import http.cookies
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit


class Page(NamedTuple):
    """What one visit led to."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Form:
    """A form of a page: where it goes, and its fields with their values."""

    def __init__(self, action: str, method: str) -> None:
        self.action = action
        self.method = method
        self.fields: dict[str, str] = {}
        self.choices: dict[str, list[str]] = {}


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.open = False
        self.area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(values.get("action", ""), values.get("method", "get")))
            self.open = True
        elif tag in ("a", "link") and "href" in values:
            self.links.append(values["href"])
        elif tag in ("script", "img") and "src" in values:
            self.links.append(values["src"])
        elif self.open and "name" in values and tag in ("input", "textarea", "select"):
            form, name = self.forms[-1], values["name"]
            if values.get("type") in ("radio", "checkbox", "submit"):
                form.choices.setdefault(name, []).append(values.get("value", "on"))
            else:
                form.fields[name] = values.get("value", "")
                self.area = name if tag == "textarea" else ""

    def handle_data(self, data: str) -> None:
        if self.area:
            self.forms[-1].fields[self.area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.open = False
        elif tag == "textarea":
            self.area = ""


class Browser:
    """Visits one server over one kept connection.

    Args:
        port: where it is.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookies: dict[str, str] = {}
        self.page = Page("/", 0, {}, b"")

    def get(self, url: str) -> Page:
        """Visit a page, and where it redirects to."""
        return self._visit("GET", url)

    def submit(self, number: int = 0, **fields: str) -> Page:
        """Fill in a form of the page and send it."""
        form = self.forms()[number]
        content = urlencode({**form.fields, **fields}).encode()
        return self._visit(form.method.upper(), form.action, content)

    def forms(self) -> list[Form]:
        return self._parsed().forms

    def links(self) -> list[str]:
        """Where the page's links, styles, scripts and images are."""
        return [urljoin(self.page.url, link) for link in self._parsed().links]

    def close(self) -> None:
        self._connection.close()

    def _parsed(self) -> _Parser:
        parser = _Parser()
        parser.feed(self.page.text)
        return parser

    def _visit(self, method: str, url: str, content: bytes | None = None) -> Page:
        for _ in range(5):
            url = urljoin(self.page.url, url)
            self.page = self._request(method, url, content)
            if self.page.status not in (301, 302, 303):
                return self.page
            method, content = "GET", None
            url = urlsplit(self.page.headers["location"])._replace(scheme="", netloc="").geturl()
        raise AssertionError(f"redirected for ever, last to {url}")

    def _request(self, method: str, url: str, content: bytes | None) -> Page:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if content is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, url, content, headers)
        response = self._connection.getresponse()
        for line in response.headers.get_all("set-cookie", []):
            for name, morsel in http.cookies.SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Page(url, response.status, fields, response.read())
