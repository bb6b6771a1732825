# Rung's file: advancing to another stage may change it.
"""Answers without rows count as empty, and are cached briefly."""

import json

import pytest

from app.infra.cache.entry import has_no_rows

NEXT = "0192f7c2-6a35-7c1e-9d5b-3c8f2f9f4b10"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"articles": [], "next": None},
        {"articles": [], "articlesCount": 0},
        {"items": [], "has_more": False, "next_cursor": ""},
        {"items": [], "page": 1, "limit": 20, "offset": 40, "total": 0},
        {"items": [], "next": NEXT},
        {"data": {"items": [], "page": {"number": 0, "cursor": NEXT}}, "errors": []},
        {"products": [], "makers": []},
        {"article": None},
    ],
)
def test_an_answer_without_rows_is_empty(answer: object) -> None:
    assert has_no_rows(json.dumps(answer).encode())


@pytest.mark.parametrize(
    "answer",
    [
        [0],
        [None],
        [[]],
        0,
        "",
        "none",
        False,
        {"count": 0},
        {"articles": [{"id": 1}], "next": None},
        {"articles": [], "total": 7},
        {"articles": [], "pinned": [{"id": 1}]},
        {"id": 1, "comments": []},
        {"name": "Ada", "bio": None},
        {"pages": [{"id": 1}], "comments": []},
        {"data": {"items": [1]}, "errors": []},
    ],
)
def test_an_answer_with_anything_in_it_is_not_empty(answer: object) -> None:
    assert not has_no_rows(json.dumps(answer).encode())
