"""`make load`: visitors of the sample shop. Change it to what your own visitors do."""

import random
from http.cookiejar import DefaultCookiePolicy
from itertools import cycle
from uuid import uuid4

from locust import FastHttpUser, between, task

# Visitors share 20 accounts, because one address may register 100 in 15 minutes.
PEOPLE = cycle([f"{uuid4()}@example.com" for _ in range(20)])


class Visitor(FastHttpUser):
    wait_time = between(0.1, 0.5)

    def on_start(self) -> None:
        # Locust sends a Secure cookie over HTTPS only. Browsers always send it to localhost.
        self.client.cookiejar.set_policy(DefaultCookiePolicy(secure_protocols=("http", "https")))
        person = {"email": next(PEOPLE), "password": "correct horse battery staple"}
        # Not part of the load: with catch_response and without `with`, Locust counts nothing.
        answer = self.client.post("/accounts", json=person, catch_response=True)
        if answer.status_code == 409:
            answer = self.client.post("/session", json=person, catch_response=True)
        answer.raise_for_status()
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
