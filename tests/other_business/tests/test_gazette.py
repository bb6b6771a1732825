from httpx import AsyncClient

from tests.conftest import LogIn


async def test_a_reader_sees_the_articles_of_those_whom_she_follows(
    client: AsyncClient, log_in: LogIn
) -> None:
    ada, grace = await log_in("ada"), await log_in("grace")
    article = (await ada.post("/articles", json={"title": "On engines"})).json()
    await grace.post(f"/articles/{article}/comments", json={"body": "Well put."})
    assert (await grace.get("/articles")).json() == {"articles": [], "is_mine": True}

    assert (await grace.put("/people/ada/followers")).status_code == 204

    (read,) = (await grace.get("/articles")).json()["articles"]
    assert read == {"id": article, "title": "On engines", "author": "ada", "comments": 1}
    assert (await client.get("/articles")).json()["is_mine"] is False


async def test_an_article_is_among_the_newest_at_once(client: AsyncClient, log_in: LogIn) -> None:
    ada = await log_in("ada")
    assert (await ada.get("/newest")).json()["articles"] == []

    await ada.post("/articles", json={"title": "On engines"})

    assert [one["title"] for one in (await ada.get("/newest")).json()["articles"]] == ["On engines"]


async def test_a_token_opens_nothing_after_logout(log_in: LogIn) -> None:
    ada = await log_in("ada")
    assert (await ada.get("/me")).json()["name"] == "ada"
    assert (await ada.delete("/tokens/current")).status_code == 204

    assert (await ada.get("/me")).status_code == 401
    assert (await ada.get("/articles")).status_code in {200, 401}
