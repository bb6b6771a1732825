"""`make load`: visitors of the sample shop. Give them the habits of your own visitors."""

import random
from http.cookiejar import DefaultCookiePolicy
from itertools import cycle
from uuid import uuid4

from gevent.lock import Semaphore
from locust import FastHttpUser, between, task

PASSWORD = "correct horse battery staple"

# Visitors share accounts, because one address may register only 100 in a quarter of an hour. The
# lock makes the first visitor of an account register it before the next one logs in.
ACCOUNTS = cycle([(f"load-{number}@example.com", Semaphore()) for number in range(20)])


class Visitor(FastHttpUser):
    wait_time = between(0.1, 0.5)

    def on_start(self) -> None:
        # Locust sends a Secure cookie over HTTPS only. Browsers send it to localhost in any case.
        self.client.cookiejar.set_policy(DefaultCookiePolicy(secure_protocols=("http", "https")))
        email, lock = next(ACCOUNTS)
        person = {"email": email, "password": PASSWORD}
        # Preparation is no load: Locust does not count a caught response outside of `with`.
        with lock:
            if not self.client.post("/session", json=person, catch_response=True).ok:
                registered = self.client.post("/accounts", json=person, catch_response=True)
                registered.raise_for_status()
        self.products = self.client.get("/products", catch_response=True).json()["products"]

    @task(10)
    def look_at_a_product(self) -> None:
        product = random.choice(self.products)  # noqa: S311
        self.client.get(f"/products/{product['id']}", name="/products/{product_id}")

    @task(5)
    def browse(self) -> None:
        self.client.get("/products?limit=20", name="/products")

    @task(3)
    def who_am_i(self) -> None:
        self.client.get("/me")

    @task(1)
    def order_and_cancel(self) -> None:
        wanted = random.choice([one for one in self.products if one["stock"] > 0])  # noqa: S311
        placed = self.client.post(
            "/orders",
            json={"items": [{"product_id": wanted["id"], "quantity": 1}]},
            headers={"Idempotency-Key": str(uuid4())},
        )
        if placed.ok:
            path = f"/orders/{placed.json()['id']}/cancellation"
            self.client.post(path, name="/orders/{order_id}/cancellation")
