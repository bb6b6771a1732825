"""Three people use the shop at random, and the drive reports each of their answers.

Runs in a generated repo of any stage: python -m same_answers.drive
"""

import hashlib
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
from leaks.drive import Shop

SERVE = (sys.executable, "-m", "app.infra.serve")
REQUESTS = 800
HEADERS = ("allow", "cache-control", "content-type", "location", "retry-after", "vary")

# Each run has others: the reports say only which of them are the same.
ID = re.compile(r"[0-9a-f]{64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OTHERWISE_NEW = re.compile(
    r'\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)|(?<="token":")[^"]+|https?://[^"]+'
)

NOBODYS = "0198c0de-0000-7000-8000-000000000000"
ODD = (NOBODYS, "nonsense", "ffffffff-ffff-ffff-ffff-ffffffffffff", "%00", "A" * 300)
IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "image/gif": b"GIF89a" + bytes(20),
    "image/jpeg": b"\xff\xd8\xff" + bytes(30),
}


class Person:
    def __init__(self, name: str) -> None:
        self.email = f"{name}@example.com"
        self.password = f"the long secret of {name}"
        self.login: dict[str, str] = {}  # the header of it


class Visit:
    def __init__(self, client: httpx.Client) -> None:
        self.answers: list[Any] = []
        self.products: list[str] = []
        self.orders: list[str] = []
        self.uploads: list[str] = []
        self._client = client
        self._random = random.Random(1)  # noqa: S311  # the same at each stage
        self._known: dict[str, str] = {}
        # All send the position of the last write, so that no answer is stale.
        self._read_after: dict[str, str] = {}
        self.people = [Person(name) for name in ("ada", "grace", "mary")]
        self.staff = self.people[0]

    def ask(
        self, person: Person | None, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        sent = {**headers, **self._read_after, **(person.login if person else {})}
        answer = self._client.request(method, path, json=body, headers=sent)
        self._client.cookies.clear()
        if position := answer.headers.get("read-after"):
            self._read_after = {"read-after": position}
        told = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
        request = f"{method} {path}"
        self.answers.append(
            [self._same(text) for text in (request, str(answer.status_code), answer.text)]
            + [{name: self._same(value) for name, value in told.items()}]
        )
        return answer

    def _same(self, text: str) -> str:
        text = OTHERWISE_NEW.sub("…", text)
        return ID.sub(lambda one: self._known.setdefault(one[0], f"#{len(self._known)}"), text)

    def one_of[T](self, *given: T) -> T:
        return self._random.choice(given)

    def some(self, ids: list[str]) -> str:
        return self.one_of(*ids) if ids and self._random.random() < 0.9 else self.one_of(*ODD)

    def log_in(self, person: Person) -> None:
        credentials = {"email": self.one_of(person.email, person.email.upper())}
        credentials["password"] = self.one_of(*[person.password] * 9, "a wrong one")
        person.login = {}
        answer = self.ask(person, "POST", self.one_of("/session", "/tokens"), credentials)
        if answer.status_code == 201:
            person.login = {"authorization": f"Bearer {answer.json()['token']}"}
        elif answer.status_code == 200:
            person.login = {"cookie": answer.headers["set-cookie"].partition(";")[0]}

    def log_out(self, person: Person) -> None:
        self.ask(person, "DELETE", self.one_of("/session", "/tokens/current", "/me/sessions"))

    def end_a_session(self, person: Person) -> None:
        found = self.ask(person, "GET", "/me/sessions")
        sessions = found.json() if found.status_code == 200 else []
        ended = self.some([one["id"] for one in sessions])
        self.ask(person, "DELETE", f"/me/sessions/{ended}")

    def change_password(self, person: Person) -> None:
        new = person.password + self.one_of("!", "?", "")
        body = {"current_password": self.one_of(person.password, "wrong"), "new_password": new}
        if self.ask(person, "PUT", "/me/password", body).status_code == 204:
            person.password = new

    def look_at_me(self, person: Person) -> None:
        self.ask(person, "GET", "/me")

    def add_a_product(self, person: Person) -> None:
        product = {
            "name": self.one_of("Tee", "커피 원두", "<b>", "", "x" * 300),
            "description": self.one_of("", "한글"),
            "price_cents": self.one_of(1, 100, 0, -1, 2**31, 1.5, "7"),
            "stock": self.one_of(0, 5, 1000),
        }
        answer = self.ask(self.one_of(self.staff, person), "POST", "/products", product)
        if answer.status_code == 201:
            self.products.append(answer.json()["id"])

    def change_a_product(self, person: Person) -> None:
        changes: list[dict[str, Any]] = [
            *({"price_cents": 5}, {"stock": 7}, {"name": "new"}, {"stock": -1}),
            *({"name": None}, {}, {"unknown": 1}),
        ]
        path = f"/products/{self.some(self.products)}"
        self.ask(self.one_of(self.staff, person), "PATCH", path, self.one_of(*changes))

    def look_at_a_product(self, person: Person) -> None:
        self.ask(self.one_of(person, None), "GET", f"/products/{self.some(self.products)}")

    def look_at_pages(self, person: Person) -> None:
        limit, before = self.one_of("1", "20", "101", "x"), self.some(self.products)
        for path in ("/products", "/orders"):
            self.ask(person, "GET", path + self.one_of("", f"?limit={limit}", f"?before={before}"))

    def order(self, person: Person) -> None:
        items = [
            {"product_id": self.some(self.products), "quantity": self.one_of(1, 1, 2, 0, 10**10)}
            for _ in range(self.one_of(0, 1, 1, 2))
        ]
        key = self.one_of(f"a key {len(self.answers)}", *(f"key-{n:08}" for n in range(30)))
        headers = {"idempotency-key": key}
        answer = self.ask(person, "POST", "/orders", {"items": items}, **headers)
        if answer.status_code == 201:
            self.orders.append(answer.json()["id"])

    def cancel(self, person: Person) -> None:
        self.ask(person, "POST", f"/orders/{self.some(self.orders)}/cancellation")

    def upload(self, person: Person) -> None:
        kind = self.one_of(*IMAGES)
        image = IMAGES[kind]
        body = {
            "content_type": self.one_of(kind, kind, "text/html"),
            "size": self.one_of(len(image), len(image), 0, 10**12),
            "sha256": self.one_of(*[hashlib.sha256(image).hexdigest()] * 3, "x"),
        }
        answer = self.ask(person, "POST", "/uploads", body)
        if answer.status_code == 201:
            self.uploads.append(answer.json()["id"])
            to = answer.json()["send_to"]
            sent = self._client.request(
                to["method"], to["url"], content=image, headers=to["headers"]
            )
            assert sent.is_success, sent.text
            # The folder of stage 1 needs no condition to refuse a second file.
            self.answers.pop()

    def use_an_upload(self, person: Person) -> None:
        upload = f"/uploads/{self.some(self.uploads)}"
        self.ask(person, "POST", f"{upload}/completion")
        self.ask(person, "GET", upload)
        shown = self.ask(person, "GET", f"{upload}/image")
        if shown.status_code == 307:
            image = self._client.get(shown.headers["location"])
            self.answers.append([hashlib.sha256(image.content).hexdigest()])
        if self.one_of(True, False, False):
            self.ask(person, "DELETE", upload)

    def ask_what_there_is_not(self, person: Person) -> None:
        method = self.one_of("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")
        self.ask(person, method, self.one_of("/nowhere", "/products/", "/session", "/me", "/live"))

    def actions(self) -> Iterator[tuple[Callable[[Person], None], int]]:
        yield self.log_in, 3
        yield self.log_out, 1
        yield self.end_a_session, 2
        yield self.change_password, 1
        yield self.look_at_me, 3
        yield self.add_a_product, 4
        yield self.change_a_product, 4
        yield self.look_at_a_product, 8
        yield self.look_at_pages, 4
        yield self.order, 10
        yield self.cancel, 3
        yield self.upload, 3
        yield self.use_an_upload, 4
        yield self.ask_what_there_is_not, 2

    def run(self, shop: Shop) -> None:
        for person in self.people:
            credentials = {"email": person.email, "password": person.password}
            self.ask(person, "POST", "/accounts", credentials)
        shop.run("-m", "app.accounts.promote", self.staff.email)
        for person in self.people:
            self.log_in(person)
        actions, weights = zip(*self.actions(), strict=True)
        while len(self.answers) < REQUESTS:
            [act] = self._random.choices(actions, weights)
            person = self.one_of(*self.people)
            act(person)
            if self.answers[-1][1:2] == ["401"]:
                self.log_in(person)


def main() -> None:
    with ExitStack() as stack:
        shop = Shop(stack, SERVE)
        visit = Visit(stack.enter_context(httpx.Client(base_url=shop.url, timeout=60)))
        visit.run(shop)
    print(json.dumps(visit.answers))


if __name__ == "__main__":
    main()
