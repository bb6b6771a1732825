"""A stored file in a real browser: as a page, and in a frame of another page."""

import io
import shutil
import wave
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from browsing import chromium
from conftest import Render
from serving import free_port, make_dev

# A route of the team that stores what it is sent, and answers with the file's link.
STORES = """
@router.post("/stored", include_in_schema=False)
async def store(request: Request, files: Files, content_type: str) -> str:
    key = f"stored/{uuid4()}"
    await files.put(key, request.stream(), int(request.headers["content-length"]))
    return files.link(key, content_type)
"""
PLAYS = "(player => player && player.duration)(document.querySelector('video'))"


@pytest.mark.slow
def test_a_browser_plays_and_frames_a_stored_file_but_runs_no_script(
    render: Render, tmp_path: Path
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": 1}), project)
    routes = project / "app" / "catalog" / "routes.py"
    imported = "from uuid import UUID, uuid4\n\nfrom fastapi import Request\n"
    written = routes.read_text(encoding="utf-8").replace("from uuid import UUID\n", imported)
    written = written.replace("\nrouter = ", "from app.infra.files import Files\n\nrouter = ")
    routes.write_text(written + STORES, encoding="utf-8")
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))

    with chromium(tmp_path / "profile") as page, make_dev(project, free_port()) as url:

        def link(content: bytes, content_type: str) -> str:
            asked = f"{url}/products/stored?content_type={quote(content_type)}"
            with urlopen(asked, data=content) as answer:
                said: str = answer.read().decode()
            return said.strip('"')

        page.goes_to(link(sound.getvalue(), "audio/wav"))
        page.waits_for(f"{PLAYS} == 2")
        html = link(b"<h1>A file</h1><script>document.title = 'It ran'</script>", "text/html")
        page.goes_to(html)
        assert page.finds("document.title + document.body.innerText") == "A file"
        page.goes_to(f"{url}/")
        page.finds(f"document.body.innerHTML = `<object data='{html}' id=file></object>`")
        page.waits_for(
            "document.querySelector('#file').contentDocument?.body.innerText == 'A file'"
        )
