"""Twenty beginnings of stories from one file, several at once; run it again after a crash.

python examples/batch.py [FOLDER]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ANIMALS = ("cat", "dog", "bird", "fish", "bear")
MODEL = "stories-27"

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
asked, answered = folder / "stories.jsonl", folder / "answers.jsonl"
with asked.open("w") as file:
    for number in range(4 * len(ANIMALS)):
        body = {
            "model": MODEL,
            "prompt": f"One day a little {ANIMALS[number % len(ANIMALS)]}",
            "max_tokens": 24,
            "seed": number,
        }
        line = {"custom_id": f"story-{number}", "method": "POST", "url": "/v1/completions"}
        file.write(json.dumps({**line, "body": body}) + "\n")

subprocess.run((sys.executable, "-m", "p2pnode", "batch", str(asked), str(answered)), check=True)
for written in answered.read_text().splitlines():
    answer = json.loads(written)
    print(answer["custom_id"], answer["response"]["body"]["choices"][0]["text"].strip())
