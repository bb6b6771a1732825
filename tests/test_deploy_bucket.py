"""The bucket's settings, as the runbook of stage 4 makes them from deploy/."""

import json
import os
import subprocess
from pathlib import Path

from conftest import Render


def test_the_command_of_the_runbook_names_the_bucket_and_the_origin_everywhere(
    render: Render, tmp_path: Path
) -> None:
    project = render({"stage": 4})
    runbook = (project / "docs" / "runbooks" / "s3" / "move-the-files.md").read_text()
    lines = runbook.splitlines()
    [at] = [number for number, line in enumerate(lines) if "deploy/s3-$what.json" in line]
    commands = "\n".join(lines[at - 1 : at + 1])

    subprocess.run(
        ["sh", "-c", commands.replace("/tmp/", f"{tmp_path}/")],  # noqa: S108
        cwd=project,
        env={**os.environ, "CORS_ORIGINS": "https://app.example.com, http://localhost:5173"},
        check=True,
    )

    made = {file.stem: file.read_text() for file in tmp_path.glob("*.json")}
    assert made.keys() == {"role", "policy", "lifecycle", "cors"}
    for name, text in made.items():
        assert json.loads(text), name
        assert "BUCKET" not in text, name
        assert "ORIGIN" not in text, name
    assert "arn:aws:s3:::shop-files/*" in made["policy"]
    [rule] = json.loads(made["cors"])["CORSRules"]
    origins = ["https://shop.example.com", "https://app.example.com", "http://localhost:5173"]
    # A browser sends "null" when the app has redirected a page of another origin to the bucket.
    assert rule["AllowedOrigins"] == [*origins, "null"]
