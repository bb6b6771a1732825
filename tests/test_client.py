"""`make client` writes a typed client that calls the running app."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from serving import free_port, make_dev, run
from variants import LONGEST, variant_name

# Code of a user of the client: it type-checks, and the app answers.
CALLS = """
import sys
from uuid import uuid4

from shop_client import AuthenticatedClient, Client
from shop_client.api.accounts import create_token, me, register
from shop_client.api.catalog import list_products
from shop_client.api.orders import list_orders, place_order
from shop_client.models import AccountOut, OrderIn, OrderItemIn, OrderOut, ProductPage, TokenOut
from shop_client.models import Credentials, OrderPage, Problem, Registration

url = sys.argv[1]
email, password = f"{uuid4()}@example.com", "correct horse battery staple"
visitor = Client(base_url=url)
registered = register.sync(client=visitor, body=Registration(email=email, password=password))
assert isinstance(registered, AccountOut), registered

visitor = Client(base_url=url)
stranger = AuthenticatedClient(base_url=url, token="wrong")
refused = list_orders.sync(client=stranger)
assert isinstance(refused, Problem) and refused.status == 401, refused
issued = create_token.sync(client=visitor, body=Credentials(email=email, password=password))
assert isinstance(issued, TokenOut), issued

client = AuthenticatedClient(base_url=url, token=issued.token)
account = me.sync(client=client)
assert isinstance(account, AccountOut) and account.id == registered.id, account
page = list_products.sync(client=client)
assert isinstance(page, ProductPage), page
wanted = next(product for product in page.products if product.stock > 1)
placed = place_order.sync(
    client=client,
    body=OrderIn(items=[OrderItemIn(product_id=wanted.id, quantity=2)]),
    idempotency_key=str(uuid4()),
)
assert isinstance(placed, OrderOut), placed
orders = list_orders.sync(client=client)
assert isinstance(orders, OrderPage) and [one.id for one in orders.orders] == [placed.id], orders
"""


@pytest.mark.slow
@pytest.mark.parametrize("variant", LONGEST, ids=variant_name)
def test_the_client_compiles_and_calls_the_running_app(
    render: Render, tmp_path: Path, variant: dict[str, Any]
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render(variant), project)
    with make_dev(project, free_port()) as url:
        # Twice, because people generate it again after each change.
        for _ in range(2):
            written = run("make", "client", f"HOST={url}", within=project)
            assert written.returncode == 0, written.stdout + written.stderr
            assert "Wrote client/." in written.stdout
        (tmp_path / "calls.py").write_text(CALLS)
        as_a_user = ("uv", "run", "--quiet", "--project", "shop/client", "--with", "mypy")
        types = run(*as_a_user, "mypy", "--strict", "calls.py", within=tmp_path)
        assert types.returncode == 0, types.stdout + types.stderr
        calls = run(*as_a_user, "python", "calls.py", url, within=tmp_path)
        assert calls.returncode == 0, calls.stdout + calls.stderr


@pytest.mark.slow
def test_without_a_running_app_it_says_what_to_do(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": 1}), project)
    port = free_port()
    refused = run("make", "client", f"PORT={port}", within=project)
    assert refused.returncode != 0
    assert f"http://localhost:{port}/" in refused.stderr
    assert "Start the app first: make dev" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (project / "client").exists()


@pytest.mark.slow
def test_a_folder_of_the_team_is_not_overwritten(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": 1}), project)
    front_end = {"README.md": "# Our front end\n", "package.json": "{}\n"}
    (project / "client").mkdir()
    for name, content in front_end.items():
        (project / "client" / name).write_text(content)
    refused = run("make", "client", within=project)
    assert refused.returncode != 0
    assert "client/ holds files that are no generated client. Move them" in refused.stderr
    assert {file.name: file.read_text() for file in (project / "client").iterdir()} == front_end
