"""The sample load's visitors, with a token: they keep no cookie and send no Read-After back."""

from http.cookiejar import DefaultCookiePolicy

from tests.load.locustfile import PEOPLE
from tests.load.locustfile import Visitor as Browser


class Visitor(Browser):
    def on_start(self) -> None:
        self.client.cookiejar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        person = {"email": next(PEOPLE), "password": "correct horse battery staple"}
        answer = self.client.post("/accounts", json=person, catch_response=True)
        if answer.status_code != 409:
            answer.raise_for_status()
        started = self.client.post("/tokens", json=person, catch_response=True)
        started.raise_for_status()
        self.client.auth_header = f"Bearer {started.json()['token']}"
        self.products = self.client.get("/products", catch_response=True).json()["products"]


Browser.abstract = True
