"""Readers of the gazette: `make load`."""

from locust import FastHttpUser, between, task


class Reader(FastHttpUser):
    wait_time = between(0.1, 0.5)

    @task
    def read(self) -> None:
        self.client.get("/newest")
