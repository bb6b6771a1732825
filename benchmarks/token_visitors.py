"""The sample load's visitors, with a token: they keep no cookie and send no Read-After back."""

from http.cookiejar import DefaultCookiePolicy
from uuid import uuid4

from tests.load.locustfile import Visitor as Browser


class Visitor(Browser):
    def on_start(self) -> None:
        self.client.cookiejar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        person = {"email": f"{uuid4()}@example.com", "password": "correct horse battery staple"}
        self.client.post("/accounts", json=person, catch_response=True).raise_for_status()
        started = self.client.post("/tokens", json=person, catch_response=True)
        self.client.auth_header = f"Bearer {started.json()['token']}"
        self.products = self.client.get("/products", catch_response=True).json()["products"]


Browser.abstract = True
