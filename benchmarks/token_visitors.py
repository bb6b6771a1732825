"""The sample load's visitors, with a token: they keep no cookie and send no Read-After back."""

from http.cookiejar import DefaultCookiePolicy

from tests.load.locustfile import ACCOUNTS, PASSWORD
from tests.load.locustfile import Visitor as Browser


class Visitor(Browser):
    def on_start(self) -> None:
        self.client.cookiejar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        email, lock = next(ACCOUNTS)
        person = {"email": email, "password": PASSWORD}
        with lock:
            if not (started := self._log_in(person)).ok:
                self.client.post("/accounts", json=person, catch_response=True).raise_for_status()
                started = self._log_in(person)
        self.client.auth_header = f"Bearer {started.json()['token']}"
        self.products = self.client.get("/products", catch_response=True).json()["products"]

    def _log_in(self, person: dict[str, str]):
        return self.client.post("/tokens", json=person, catch_response=True)


Browser.abstract = True
